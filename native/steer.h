/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0 */
/*
 * The configuration in force, as a BPF program meets it: from what a packet
 * is to hash value, report type and queue.
 *
 * Every function here answers from one configuration as a whole. User space
 * rewrites the slot that is not in force, so it takes two changes during one
 * packet, or one of the key, to be caught reading; then once more, without the
 * tables. Caught again, by two changes more, the packet goes unclassified.
 */
#ifndef VNETHASH_STEER_H
#define VNETHASH_STEER_H

#include "toeplitz.h"

/* Sections of our own: .rodata, .data and .bss are a hash program's. */
const volatile struct vnet_device vnet_device SEC(".rodata.vnet") = {
	.abi = VNET_ABI,
	.table_words = VNET_TABLE_MAX / 4,
};
struct vnet_state vnet_state SEC(".data.vnet");

/* The indirection tables of both configurations, four queues a word. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 2 * VNET_TABLE_MAX / 4);
	__type(key, __u32);
	__type(value, __u64);
} vnet_table SEC(".maps");

/* What becomes of a packet. */
struct vnet_verdict {
	__u32 hash_value;
	__u32 hash_report; /* enum vnet_report */
	__u32 queue;
	__u32 reporting;  /* enum vnet_reporting, of the configuration that was asked */
	__u32 generation; /* of the configuration by which the frame is dissected */
	__u32 bucket;     /* entry of the indirection table that told the queue, plus one */
};

/* An atomic operation that fetches is a full barrier; on the stack nobody contends for it. */
static __always_inline void vnet_order_loads(void)
{
	barrier();
	if (vnet_device.weakly_ordered) {
		__u64 local = 0, fetched = __sync_fetch_and_add(&local, 1);

		vnet_opaque(fetched);
	}
}

/*
 * The configuration in force, without its toeplitz[], which is in the tables.
 * What is read of it is good if vnet_unchanged() says so after.
 */
struct vnet_snapshot {
	const struct vnet_config *config;
	__u32 generation;
};

static __always_inline struct vnet_snapshot vnet_snapshot_of(__u32 generation)
{
	const void *slot = &vnet_state.slot[generation & 1];

	return (struct vnet_snapshot){ slot, generation };
}

static __always_inline __u32 vnet_tunnels(const struct vnet_frame *frame)
{
	__u32 generation = frame->generation;

	vnet_opaque(generation); /* computing an address anew is cheaper than keeping it */
	return READ_ONCE(vnet_snapshot_of(generation).config->tunnels);
}

static __always_inline struct vnet_snapshot vnet_snapshot(void)
{
	return vnet_snapshot_of(READ_ONCE(vnet_state.generation));
}

static __always_inline int vnet_unchanged(const struct vnet_snapshot *snapshot)
{
	vnet_order_loads();
	return READ_ONCE(snapshot->config->generation) == snapshot->generation;
}

/* Whether the tables are of a snapshot's key, and have been since it was taken. */
static __always_inline int vnet_tables_hold(const struct vnet_snapshot *snapshot)
{
	return READ_ONCE(vnet_state.tables.key_generation) ==
	       READ_ONCE(snapshot->config->key_generation);
}

/* The hash of `count` words (a constant up to VNET_INPUT_WORDS) by the key of a snapshot. */
static __always_inline __u32 vnet_snapshot_hash(const struct vnet_snapshot *snapshot,
						const __u32 *words, __u32 count)
{
	__u32 hash;

	vnet_order_loads(); /* the tables after the generation they are of */
	hash = vnet_hash_words(&vnet_state.tables, words, count);
	vnet_order_loads();
	return vnet_tables_hold(snapshot) ? hash :
					    vnet_hash_bits(snapshot->config->key, words, count);
}

/* The queue that the indirection table has for a hash. */
static __always_inline __u32 vnet_table_lookup(const struct vnet_snapshot *snapshot, __u32 hash,
					       struct vnet_verdict *verdict)
{
	__u32 mask = snapshot->config->table_mask, index, word;
	__u64 *queues;

	verdict->bucket = (hash & mask) + 1; /* gone from the code where nothing counts by it */
	if (vnet_likely(mask < VNET_TABLE_NEAR)) {
		vnet_settle(mask); /* the verifier has to see that the index is no greater */
		return snapshot->config->near[hash & mask];
	}
	index = hash & mask;
	word = (snapshot->generation & 1) * vnet_device.table_words + (index >> 2);
	queues = bpf_map_lookup_elem(&vnet_table, &word);
	return queues ? *queues >> (index & 3) * 16 & 0xffff : 0;
}

/* What a configuration makes of a packet, from the tables or without; 0 if it has changed. */
static __always_inline int vnet_judge(const struct vnet_snapshot *now,
				      const struct vnet_headers *headers, int tables,
				      struct vnet_verdict *verdict)
{
	__u32 rule;

	/* Or the compiler takes the headers apart in advance and spills. */
	vnet_in_memory(headers);
	rule = now->config->rules[headers->kind & 15];
	verdict->reporting = now->config->reporting;
	verdict->hash_report = rule & VNET_RULE_REPORT;
	if (vnet_likely(headers->kind && verdict->hash_report)) {
		verdict->hash_value = tables ? vnet_hash(&vnet_state.tables, headers, rule) :
					       vnet_hash_by_key(now->config, headers, rule);
		verdict->queue = vnet_table_lookup(now, verdict->hash_value, verdict);
	} else {
		verdict->hash_value = 0;
		verdict->queue = now->config->unclassified;
		verdict->bucket = 0;
	}
	return vnet_unchanged(now) && (!tables || vnet_tables_hold(now));
}

/*
 * What the specification makes of a packet: hash types, key and table. By the
 * configuration that the frame was dissected by, which stays whole until
 * after the next change; once more by the newest, if that looks for the same
 * tunnels, else by the first again.
 */
static __always_inline void vnet_rss(const struct vnet_headers *headers,
				     struct vnet_verdict *verdict)
{
	__u32 generation = verdict->generation;
	struct vnet_snapshot now, newest;

	vnet_opaque(generation);
	now = vnet_snapshot_of(generation);
	vnet_order_loads(); /* the tables after the generation they are of */
	if (vnet_likely(vnet_judge(&now, headers, 1, verdict)))
		return;
	newest = vnet_snapshot();
	if (vnet_hold_for(headers, newest.config->tunnels))
		now = newest;
	if (vnet_judge(&now, headers, 0, verdict))
		return;
	*verdict = (struct vnet_verdict){};
}

/*
 * The Toeplitz hash of `count` words (a constant up to VNET_INPUT_WORDS), as
 * they lie in the packet, by the key, and the queue the table has for it. The
 * report type is left to the caller.
 */
static __always_inline void vnet_toeplitz(const __u32 *words, __u32 count,
					  struct vnet_verdict *verdict)
{
	VNET_KEEP_LOOP
	for (int i = 0; i < 2; i++) {
		vnet_opaque(words);
		struct vnet_snapshot now = vnet_snapshot();

		verdict->reporting = now.config->reporting;
		verdict->hash_value = vnet_snapshot_hash(&now, words, count);
		verdict->queue = vnet_table_lookup(&now, verdict->hash_value, verdict);
		if (vnet_likely(vnet_unchanged(&now)))
			return;
	}
	*verdict = (struct vnet_verdict){};
}

/* A hash value of the caller's own, and the queue the table has for it. */
static __always_inline void vnet_steer(__u32 hash_value, struct vnet_verdict *verdict)
{
	verdict->hash_value = hash_value;
	VNET_KEEP_LOOP
	for (int i = 0; i < 2; i++) {
		vnet_opaque(hash_value);
		struct vnet_snapshot now = vnet_snapshot();

		verdict->reporting = now.config->reporting;
		verdict->queue = vnet_table_lookup(&now, hash_value, verdict);
		if (vnet_likely(vnet_unchanged(&now)))
			return;
	}
	*verdict = (struct vnet_verdict){};
}

/* A packet without a hash, and the configuration it starts with. */
static __always_inline void vnet_unclassified(struct vnet_verdict *verdict)
{
	struct vnet_snapshot now = vnet_snapshot();

	*verdict = (struct vnet_verdict){
		.queue = now.config->unclassified,
		.reporting = now.config->reporting,
		.generation = now.generation,
	};
}

#endif
