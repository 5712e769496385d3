/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* Flows, each once, with what was counted of it. */
#ifndef VNETHASH_FLOWS_H
#define VNETHASH_FLOWS_H

#include "census.h"

/* What tells flows apart are the bytes before their hash, and their kind. */
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

/* Where a flow is looked for. */
__u64 flows_place(const struct flows *flows, const struct vh_flow *flow);
void flows_fetch_slot(const struct flows *flows, __u64 place);
void flows_fetch_flow(const struct flows *flows, __u64 place);

/*
 * The number of the flow: the one that is there, or a new one, whose report
 * type, hash and counts are taken over as they are. Room for one has to have
 * been made.
 */
__u32 flows_find(struct flows *flows, __u64 place, const struct vh_flow *flow, int *is_new);

/* Room for `more` flows. Returns 0 or -ENOMEM. */
int flows_reserve(struct flows *flows, __u64 more);

#endif
