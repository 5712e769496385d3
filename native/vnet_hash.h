/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0 */
/*
 * A hash program: one function that decides about a packet. All around it,
 * from the packet to the reader of the queue, is in here.
 *
 *	#include <vnet_hash.h>
 *
 *	VNET_HASH_PROGRAM(frame, verdict)
 *	{
 *		struct vnet_headers headers;
 *
 *		vnet_dissect(frame, &headers);
 *		vnet_rss(&headers, verdict);
 *	}
 *
 * is vnethash's own (stages.bpf.c). `vnethash build` compiles one, and
 * docs/programs.md explains this interface.
 *
 * It finds the verdict as for a packet without a hash: value 0, report type
 * VNET_REPORT_NONE, the unclassified queue. What it leaves there that cannot
 * be is put right and counted (enum vnet_invalid). It has
 *
 *	vnet_at() vnet_copy_at()        bytes of the frame, or 0 if they are not there
 *	vnet_dissect() and its parts    the headers RSS looks at    (tunnel.h, dissect.h)
 *	vnet_cut()                      a frame that ends with a packet   (frame.h)
 *	vnet_rss()                      what the specification says   (steer.h)
 *	vnet_toeplitz()                 the hash of other words by the key
 *	vnet_steer()                    a hash of its own through the table
 *	vnet_snapshot()                 the configuration in force
 *	vnet_snapshot_hash()            the hash of words by its key
 *	vnet_count()                    16 counters, shown by `vnethash stats`
 *	struct .. SEC(".maps"), global variables: its own
 */
#ifndef VNETHASH_VNET_HASH_H
#define VNETHASH_VNET_HASH_H

#ifndef __bpf__
#error "a hash program is compiled for BPF: vnethash build, or clang -target bpf"
#endif

#include "record.h"

/* Before the #include, for a program whose licence is another. */
#ifndef VNET_LICENSE
#define VNET_LICENSE "Dual BSD/GPL"
#endif

#define VNET_HASH_PROGRAM(frame, verdict)                                                  \
	static __always_inline void vnet_hash_program(                                     \
		const struct vnet_frame *frame __attribute__((unused)),                    \
		struct vnet_verdict *verdict __attribute__((unused)))

VNET_HASH_PROGRAM(frame, verdict);

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, VNET_QUEUES_MAX);
	__type(key, __u32);
	__type(value, struct vnet_counters);
} vnet_counters SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, VNET_COUNTS);
	__type(key, __u32);
	__type(value, __u64);
} vnet_counts SEC(".maps");

/* What came to each entry of the indirection table, where hash_stage_adaptive() runs. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1 + VNET_TABLE_MAX);
	__type(key, __u32);
	__type(value, struct vnet_traffic);
} vnet_buckets SEC(".maps");

/* Add one to a counter of the program's own, 0 to VNET_COUNTS - 1. */
static __always_inline void vnet_count(__u32 index)
{
	__u64 *count = bpf_map_lookup_elem(&vnet_counts, &index);

	if (count)
		++*count;
}

enum {
	VNET_GO_ON = -1, /* TCX_NEXT, and TC_ACT_UNSPEC for clsact: to the next program */
};

static __always_inline struct vnet_counters *vnet_counters_of(__u32 queue)
{
	return bpf_map_lookup_elem(&vnet_counters, &queue);
}

/* What becomes of a packet, put right where it cannot be, and counted. */
static __always_inline struct vnet_counters *vnet_decide(struct __sk_buff *skb,
						    struct vnet_verdict *verdict)
{
	__u64 scratch[VNET_SCRATCH / 8];
	struct vnet_counters *counter;

	vnet_unclassified(verdict);

	struct vnet_frame frame = {
		.skb = skb,
		.scratch = scratch,
#ifndef VNET_COPIES_ONLY
		.data = (void *)(long)skb->data,
		.data_end = (void *)(long)skb->data_end,
#endif
		.length = skb->len,
		.is_l3 = vnet_device.is_l3,
		.generation = verdict->generation,
	};

#ifndef VNET_COPIES_ONLY
	__builtin_assume(frame.data != 0); /* spares a look at each pointer into it */
#endif
	vnet_hash_program(&frame, verdict);

	counter = vnet_counters_of(verdict->queue);
	if (!counter) {
		verdict->queue = vnet_snapshot().config->unclassified;
		verdict->bucket = 0;
		counter = vnet_counters_of(verdict->queue);
		if (!counter)
			return 0; /* cannot be */
		counter->invalid[VNET_INVALID_QUEUE]++;
	}
	if (verdict->hash_report >= VNET_REPORTS) {
		verdict->hash_report = VNET_REPORT_NONE;
		verdict->hash_value = 0;
		counter->invalid[VNET_INVALID_REPORT]++;
	}
	counter->by_report[verdict->hash_report].packets++;
	counter->by_report[verdict->hash_report].bytes += frame.length;
	return counter;
}

#ifdef VNET_WAY
#include "lab_stage.h"
#else
/* By value: a verdict whose address is taken is all kept in memory. */
static __always_inline void vnet_count_bucket(__u32 bucket, __u32 length)
{
	struct vnet_traffic *traffic = bpf_map_lookup_elem(&vnet_buckets, &bucket);

	if (traffic) {
		traffic->packets++;
		traffic->bytes += length;
	}
}

static __always_inline int vnet_hash_stage(struct __sk_buff *skb, int adaptive)
{
	struct vnet_counters *counter;
	struct vnet_verdict verdict;
	int reason;

	counter = vnet_decide(skb, &verdict);
	if (adaptive)
		vnet_count_bucket(verdict.bucket, skb->len);
	skb->queue_mapping = verdict.queue;
	if (verdict.reporting == VNET_REPORTING_RECORD) {
		reason = vnet_prepend(skb, &verdict);
		if (counter && reason >= 0 && reason < VNET_UNMARKED_REASONS)
			counter->unmarked[reason]++;
	}
	return VNET_GO_ON;
}

/*
 * At the device's egress hook, before the kernel chooses a queue: leaves the
 * queue in the packet's queue_mapping, and the hash record in front of the
 * frame when asked. Drops no packet, whatever happens.
 */
SEC("tc")
int hash_stage(struct __sk_buff *skb)
{
	return vnet_hash_stage(skb, 0);
}

/* The same, counting by bucket. One of the two is loaded, so that the other costs nothing. */
SEC("tc")
int hash_stage_adaptive(struct __sk_buff *skb)
{
	return vnet_hash_stage(skb, 1);
}

/* The TUNSETSTEERINGEBPF program. */
SEC("socket")
int steering_stage(struct __sk_buff *skb)
{
	return skb->queue_mapping;
}
#endif

char LICENSE[] SEC("license") = VNET_LICENSE;

#endif
