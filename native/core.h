/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/*
 * The native core: what runs per packet in user space. Plain C behind a plain
 * interface, called through cffi without the interpreter's lock; it knows
 * nothing of Python.
 *
 * Functions that can fail return a negative errno.
 */
#ifndef VNETHASH_CORE_H
#define VNETHASH_CORE_H

#include "vnethash.h"

struct vnet_bulk; /* bulk.h */

/* One RSS configuration with its indirection table. */
struct vh_config {
	struct vnet_config rss;
	__u16 table[];
};

struct vh_verdict {
	__u32 hash_value;
	__u32 index; /* of the indirection table; all ones without a hash */
	__u16 report;
	__u16 queue;
};

enum vh_queue {
	VH_ANY_QUEUE = 0xffff, /* in a table of a history: explains every queue, steers to none */
};

/* A received packet: where its frame lies in the arena, and its header. */
struct vh_packet {
	__u32 offset;
	__u32 length;
	struct vnet_hdr header; /* corrected: as if the frame had never had a record */
	__u16 queue;            /* the queue it came from, by its configuration */
	__u16 has_record;       /* the hash came with the packet */
};

/* What the compiler made of the structures, for the test that compares. */
struct vh_layout {
	__u32 record, hdr, config, config_toeplitz, state, state_tables, counters, verdict, packet,
		packet_header;
};
void vh_layout(struct vh_layout *layout);

/* hashing; in bulk as bulk.h does, compiled in */
void vh_fill_tables(struct vnet_config *config); /* from its hash types and key */
__u32 vh_toeplitz(const struct vnet_config *config, const __u8 *input, __u32 length);
void vh_bulk_init(struct vnet_bulk *bulk, const struct vnet_config *config);
int vh_bulk_use(struct vnet_bulk *bulk, __u32 method);
void vh_bulk_hash(const struct vnet_bulk *bulk, const __u8 *rows, __u32 width, __u64 count,
		  __u32 *hashes);
void vh_classify(const struct vh_config *config, const __u8 *frame, __u32 length, int is_l3,
		 struct vh_verdict *verdict);
/* Returns `count`, or the number of a frame that does not lie in memory[size]: nothing is done. */
__u64 vh_classify_batch(const struct vh_config *config, const struct vnet_bulk *bulk,
			const __u8 *memory, __u64 size, const __u64 *offsets,
			const __u32 *lengths, __u64 count, int is_l3, struct vh_verdict *verdicts);

/* configuring the BPF stages through their mapped maps */
void vh_publish(struct vnet_state *state, __u64 *table, __u32 table_words,
		const struct vh_config *config);

/*
 * The configurations a reader may still meet. A packet that has to be hashed
 * again was steered by one of the last; the one that explains its queue is
 * the one to hash it with.
 */
struct vh_history;
struct vh_history *vh_history_new(void);
void vh_history_free(struct vh_history *history);
int vh_history_push(struct vh_history *history, const struct vh_config *config);

/* reading one queue of a tap steered by the kernel */
struct vh_reader {
	int fd;
	__u16 queue;
	__u8 is_l3;
	__u8 header;        /* bytes the kernel writes: VNET_HDR_LEN, or VNET_HDR_HASH_LEN */
	__u8 takes_records; /* a hash stage may have put records in front */
	__u8 rehashes;      /* a frame that came without a hash is hashed here */
	struct vh_history *history;
	struct vnet_counters *counters; /* of what is read, where nothing else counts; or NULL */
};
int vh_receive(const struct vh_reader *reader, __u8 *arena, __u64 size, struct vh_packet *packets,
	       __u32 max);

/* reading all queues of a tap and steering in user space */
struct vh_resteer;
struct vh_resteer *vh_resteer_new(const int *fds, __u32 queues, int is_l3,
				  struct vh_history *history);
void vh_resteer_free(struct vh_resteer *resteer);
int vh_resteer_event_fd(const struct vh_resteer *resteer, __u32 queue);
int vh_resteer_receive(struct vh_resteer *resteer, __u32 queue, __u8 *arena, __u64 size,
		       struct vh_packet *packets, __u32 max);
void vh_resteer_counters(struct vh_resteer *resteer, __u32 queue, struct vnet_counters *counters,
			 __u64 *dropped);

#endif
