/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/*
 * The device's side of a split virtqueue (virtio 2.7). Indices run freely, as
 * 16 bits; of what the driver wrote each word is read once, then checked.
 */
#ifndef VNETHASH_RING_H
#define VNETHASH_RING_H

#include <linux/virtio_ring.h>
#include <sys/uio.h>

#include "guest_memory.h"

struct notifier {
	int fd; /* -1: none */
	int is_socket; /* user-mode-linux gives one */
};

struct ring {
	const struct vh_memory *memory;
	const struct vring_desc *table;
	struct vring_avail *avail;
	struct vring_used *used;
	const struct memory_region *last_table; /* met last, of indirect tables */
	const struct memory_region *last_buffer;
	__u32 size;
	__u16 next;      /* chain to fetch, in the available ring */
	__u16 available; /* chains up to here may be fetched */
	__u16 base;      /* the oldest chain that is not used */
	__u16 use;       /* entry of the used ring to write */
	__u16 published; /* entries up to here the driver sees */
	__u16 called;    /* up to here it has been told of them */
	__u8 has_called;
	__u8 hears_kicks;
	__u8 event_idx;
	__u8 indirect;
	__u8 logs;
	struct notifier call;
	struct notifier error;
	__u64 log_address;
	struct vh_fault fault;
};

/* A chain as fetched: first what the device may read, then what it may write. */
struct chain {
	__u16 head;
	__u16 descriptors; /* of the ring's table */
	__u32 readable;    /* spans */
	__u32 writable;
	__u64 readable_length;
	__u64 writable_length;
};

/* Returns 0, or -1 with the ring's fault set. */
int ring_start(struct ring *ring, struct vh_memory *memory, const struct vh_ring_setup *setup,
		enum vh_fault_queue queue);

/* Always -1. */
int ring_fail(struct ring *ring, enum vh_fault_reason reason, __u64 detail);

/*
 * Fetch the next chain; room for VH_CHAIN_MAX spans. Returns 1, 0 if there is
 * none, -1 after a fault.
 */
int ring_fetch(struct ring *ring, struct chain *chain, struct iovec *spans);

/* Give the chain fetched last back, to be fetched again. */
static inline void ring_unfetch(struct ring *ring)
{
	ring->next--;
}

/* Mark `length` bytes of a chain's spans as written; the memory has a log. */
void ring_log_spans(const struct ring *ring, const struct iovec *spans, __u64 length);

/* Put the oldest chain into the used ring, where the driver does not see it yet. */
void ring_use(struct ring *ring, __u16 head, __u32 length);

/* Let the driver see what is used, and tell it if it wants to hear. Returns whether it did. */
int ring_publish(struct ring *ring);

/* Hear of new chains. Returns whether there are some, of which nobody will be told. */
int ring_want_kicks(struct ring *ring);
void ring_no_kicks(struct ring *ring);

/* Tell the front end that the ring is broken. */
void ring_announce_fault(const struct ring *ring);

#endif
