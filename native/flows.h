/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* Flows, each once, with what was counted of it. */
#ifndef VNETHASH_FLOWS_H
#define VNETHASH_FLOWS_H

#include "census.h"
#include "frame.h"

/* What tells flows apart are addresses, ports and kind. */
struct flows {
	struct vh_flow *flow;
	__u64 count, room;
	/* Open addressing; at most half of the slots are taken. */
	struct flow_slot {
		__u32 tag;  /* of the hash that chose the slot */
		__u32 flow; /* its number plus 1; 0: free */
	} *slot;
	__u64 slots;
	__u64 seed[4]; /* nobody who makes packets shall know which ones share a slot */
};

int flows_init(struct flows *flows);
void flows_free(struct flows *flows);

/* 8 bytes of the addresses: as they were written, or the CPU would wait for them. */
static inline __u64 flow_word(const struct vh_flow *flow, __u32 word)
{
	__u64 value;

	memcpy(&value, flow->addresses + 8 * word, sizeof(value));
	return value;
}

static inline __u64 flows_mix(__u64 a, __u64 b)
{
	unsigned __int128 product = (unsigned __int128)a * b;

	return (__u64)product ^ (__u64)(product >> 64);
}

/* Where a flow is looked for. */
static inline __u64 flows_place(const struct flows *flows, const struct vh_flow *flow)
{
	const __u64 *seed = flows->seed;
	__u64 ports = vnet_u32(flow->ports), place;

	place = flows_mix(flow_word(flow, 0) ^ seed[0], (ports << 8 | flow->kind) ^ seed[1]);
	if (flow->kind >= VNET_REPORT_IPV6)
		place ^= flows_mix(flows_mix(flow_word(flow, 1) ^ seed[1],
					     flow_word(flow, 2) ^ seed[2]) ^ flow_word(flow, 3),
				   seed[3]);
	return place;
}

static inline void flows_fetch_slot(const struct flows *flows, __u64 place)
{
	__builtin_prefetch(flows->slot + (place & (flows->slots - 1)));
}

static inline void flows_fetch_flow(const struct flows *flows, __u64 place)
{
	const struct flow_slot *slot = flows->slot + (place & (flows->slots - 1));

	if (slot->flow && slot->tag == (__u32)(place >> 32))
		__builtin_prefetch(flows->flow + slot->flow - 1, 1);
}

/*
 * The number of the flow: the one that is there, or a new one, whose report
 * type, hash and counts are taken over as they are. Room for one has to have
 * been made.
 */
__u32 flows_find(struct flows *flows, __u64 place, const struct vh_flow *flow, int *is_new);

/* Room for `more` flows. Returns 0 or -ENOMEM. */
int flows_reserve(struct flows *flows, __u64 more);

#endif
