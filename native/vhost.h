/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/*
 * The data path of the vhost-user backend: guest memory, split virtqueues
 * (virtio 1.3, 2.7), and a thread for each pair of queues that carries packets
 * between a tap queue and the guest's rings. Nothing the guest or the front
 * end wrote is trusted: what breaks a rule ends as a fault of its ring, also
 * when the front end takes the memory away.
 */
#ifndef VNETHASH_VHOST_H
#define VNETHASH_VHOST_H

#include "core.h"

enum vh_vhost_limit {
	VH_REGIONS_MAX = 509,     /* memory slots: those of vhost and KVM on x86 */
	VH_RING_MAX = 32768,      /* virtio 2.7: the largest queue size */
	VH_CHAIN_MAX = 1024,      /* descriptors of a chain: IOV_MAX */
	VH_LOG_PAGE = 4096,       /* bytes for which the dirty log has a bit */
	VH_COMMAND_MAX = 1 << 18, /* bytes taken of a control command */
	VH_FILTER_MACS = 64,      /* addresses in each table of the receive filter */
};

/* Which rule was broken. */
enum vh_fault_reason {
	VH_FAULT_NONE = 0,
	VH_FAULT_SIZE = 1,       /* ring size: no power of two, or above VH_RING_MAX */
	VH_FAULT_ALIGNMENT = 2,  /* a part of the ring is not aligned */
	VH_FAULT_ADDRESS = 3,    /* a part of the ring does not lie in one region */
	VH_FAULT_AVAILABLE = 4,  /* more chains available than the ring holds */
	VH_FAULT_HEAD = 5,       /* a chain starts behind the descriptor table */
	VH_FAULT_NEXT = 6,       /* a descriptor's next lies behind its table */
	VH_FAULT_CHAIN = 7,      /* a chain too long: a loop */
	VH_FAULT_INDIRECT = 8,   /* an indirect table that cannot be */
	VH_FAULT_BUFFER = 9,     /* a buffer outside guest memory */
	VH_FAULT_DIRECTION = 10, /* a buffer to write where one to read belongs, or reverse */
	VH_FAULT_EMPTY = 11,     /* a receive buffer without room */
	VH_FAULT_MEMORY = 12,    /* guest memory went away: its file was truncated */
	VH_FAULT_DEVICE = 13,    /* the tap failed; detail is the errno */
	VH_FAULT_SYSTEM = 14,    /* no thread, or an eventfd that is none; detail is the errno */
};

enum vh_fault_queue {
	VH_QUEUE_RECEIVE = 0,
	VH_QUEUE_TRANSMIT = 1,
	VH_QUEUE_CONTROL = 2,
};

struct vh_fault {
	__u32 reason; /* enum vh_fault_reason */
	__u32 queue;  /* enum vh_fault_queue */
	__u64 detail; /* the index, address, length or errno that broke the rule */
};

/* One region of guest memory as the front end described it. */
struct vh_region {
	__u64 guest_address;
	__u64 size;
	__u64 user_address; /* in the front end */
	__u64 mmap_offset;  /* in the file */
	int fd;             /* borrowed for the call */
};

/* Where the pages that were written are marked, a bit each. */
struct vh_log {
	int fd; /* borrowed for the call */
	__u64 offset;
	__u64 size; /* bytes */
};

enum vh_memory_error {
	VH_MEMORY_NONE = 0,
	VH_MEMORY_COUNT = 1,    /* no region, or more than VH_REGIONS_MAX */
	VH_MEMORY_EMPTY = 2,    /* a region without bytes */
	VH_MEMORY_OVERFLOW = 3, /* an address or offset and the size exceed 64 bits */
	VH_MEMORY_OVERLAP = 4,  /* two regions share addresses */
	VH_MEMORY_FILE = 5,     /* the region ends behind the end of its file */
	VH_MEMORY_MAP = 6,      /* the system refused; detail is the errno */
	VH_MEMORY_LOG = 7,      /* the dirty log does not cover the guest's memory */
};

struct vh_memory_refusal {
	__u32 error;  /* enum vh_memory_error */
	__u32 region; /* which one, as they were given */
	__u64 detail;
};

/*
 * Regions, mapped; never changed, so that threads share it without a lock.
 * Each user holds a reference, and the last one unmaps.
 */
struct vh_memory;
struct vh_memory *vh_memory_new(const struct vh_region *regions, __u32 count,
				const struct vh_log *log, struct vh_memory_refusal *refusal);
void vh_memory_put(struct vh_memory *memory);

/* A virtqueue as the front end set it up; addresses are the front end's own. */
struct vh_ring_setup {
	__u32 size;
	__u16 base;         /* the available index to go on with */
	__u8 event_idx;     /* VIRTIO_F_EVENT_IDX */
	__u8 indirect;      /* VIRTIO_F_INDIRECT_DESC */
	__u8 logs;          /* writes to the used ring go into the dirty log */
	int kick;           /* eventfds, -1: none; borrowed until the ring was stopped */
	int call;
	int error;
	__u64 descriptors;
	__u64 available;
	__u64 used;
	__u64 log_address;  /* of the used ring, in the guest */
};

/*
 * Which frames the guest wants (virtio 5.1.6.5.1 to 5.1.6.5.3). An address is
 * a number whose lowest byte is sent first.
 */
struct vh_filter {
	__u8 promiscuous;
	__u8 all_multicast;
	__u8 all_unicast;
	__u8 no_multicast;
	__u8 no_unicast;
	__u8 no_broadcast;
	__u8 checks_vlans; /* VIRTIO_NET_F_CTRL_VLAN: a tagged frame passes by `vlans` only */
	__u32 unicasts;
	__u32 multicasts;
	__u64 mac;
	__u64 unicast[VH_FILTER_MACS];
	__u64 multicast[VH_FILTER_MACS];
	__u64 vlans[64]; /* a bit for each VLAN identifier */
};

/* What lies between the rings and the tap. */
struct vh_path {
	int receive_fd;    /* a tap queue, non-blocking; -1: the receive ring is left alone */
	int transmit_fd;   /* -1: the transmit ring is left alone */
	__u8 guest_header; /* VNET_HDR_LEN, or VNET_HDR_HASH_LEN with VIRTIO_NET_F_HASH_REPORT */
	__u8 tap_header;   /* bytes the kernel writes and takes: the same two */
	__u8 mergeable;    /* VIRTIO_NET_F_MRG_RXBUF */
	__u8 records;      /* a hash stage may have put records in front of frames */
	__u8 rehashes;     /* a frame that came without a hash is hashed here */
	const struct vh_filter *filter; /* or NULL: every frame; copied */
};

enum vh_drop {
	VH_DROP_FILTERED = 0,  /* receive: the guest does not want it */
	VH_DROP_NO_ROOM = 1,   /* receive: larger than the guest's buffers can hold */
	VH_DROP_MALFORMED = 2, /* either: too short for its headers */
	VH_DROP_REFUSED = 3,   /* transmit: the tap refused it as it is (EINVAL) */
	VH_DROP_DEVICE = 4,    /* transmit: the tap could not: link down, no memory */
	VH_DROPS = 5,
};

/* Of one direction, from the point of view of the guest. */
struct vh_pair_traffic {
	__u64 packets;
	__u64 bytes; /* of frames */
	__u64 dropped[VH_DROPS];
	__u64 kicks;  /* notifications from the driver that woke the thread */
	__u64 calls;  /* notifications to the driver */
	__u64 system_calls; /* that read or write packets */
};

struct vh_pair_counters {
	struct vh_pair_traffic receive;
	struct vh_pair_traffic transmit;
	__u64 wakeups;
	__u64 recorded; /* frames that brought a record */
	__u64 rehashed; /* frames hashed here */
	__u64 copied;   /* large frames that did not go straight to the guest whole */
};

struct vh_bases {
	__u16 receive; /* available indices to go on with */
	__u16 transmit;
};

/*
 * One pair of queues. Nothing but its thread touches the rings between start
 * and stop; those two and counters are for one caller at a time.
 */
struct vh_pair;
struct vh_pair *vh_pair_new(__u16 queue, struct vh_history *history);
void vh_pair_free(struct vh_pair *pair); /* stops it */
int vh_pair_start(struct vh_pair *pair, struct vh_memory *memory,
		  const struct vh_ring_setup *receive, const struct vh_ring_setup *transmit,
		  const struct vh_path *path, struct vh_fault *fault);
void vh_pair_stop(struct vh_pair *pair, struct vh_bases *bases);
void vh_pair_forget(struct vh_pair *pair); /* a packet that waits for buffers, while stopped */
int vh_pair_event_fd(const struct vh_pair *pair); /* readable after a fault */
void vh_pair_fault(const struct vh_pair *pair, struct vh_fault *fault);
void vh_pair_counters(const struct vh_pair *pair, struct vh_pair_counters *counters);

/*
 * The control queue, served by the caller's thread. Receive copies the next
 * command and returns its length, cut to `size`, -EAGAIN if there is none,
 * -EBUSY before the last was answered, -EIO after a fault.
 */
struct vh_control;
struct vh_control *vh_control_new(struct vh_memory *memory, const struct vh_ring_setup *setup,
				  struct vh_fault *fault);
void vh_control_free(struct vh_control *control);
int vh_control_receive(struct vh_control *control, __u8 *command, __u32 size);
int vh_control_answer(struct vh_control *control, const __u8 *answer, __u32 length);
__u16 vh_control_base(const struct vh_control *control);
void vh_control_fault(const struct vh_control *control, struct vh_fault *fault);

#endif
