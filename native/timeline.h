/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/*
 * Packets and bytes of each column in windows of time. There is only so much
 * room: when it is full, windows become longer, twice and five times in turn,
 * so that each is made of whole ones from before. How long they are in the end
 * depends on the times alone, not on the order in which they came.
 */
#ifndef VNETHASH_TIMELINE_H
#define VNETHASH_TIMELINE_H

#include "census.h"

struct timeline {
	__s64 length_ns;
	__u32 steps; /* how often windows became longer */
	__u32 columns;
	__u32 rows, rows_max;
	struct window {
		__s64 number; /* of the window, its start divided by the length */
		__u32 row;    /* of traffic */
	} *window; /* in the order of time; behind them the rows that are free */
	struct vnet_traffic *traffic;
	struct vnet_traffic *untimed;
	/* The window that was asked for last: most packets are in the same as the one before. */
	__s64 last_start;
	struct vnet_traffic *last;
};

int timeline_init(struct timeline *timeline, __u32 columns, __s64 length_ns);
void timeline_free(struct timeline *timeline);

/* The columns of the window of a time from -VH_TIME_MAX to VH_TIME_MAX. */
struct vnet_traffic *timeline_find(struct timeline *timeline, __s64 time_ns);

static inline struct vnet_traffic *timeline_at(struct timeline *timeline, __s64 time_ns)
{
	/* The difference may be more than a signed number holds. */
	if (timeline->last && (__u64)time_ns - timeline->last_start < (__u64)timeline->length_ns)
		return timeline->last;
	return timeline_find(timeline, time_ns);
}

/*
 * Make windows longer until whole ones of this length make up each. Returns 0, or -EINVAL if
 * that is no length that windows can have: none became longer.
 */
int timeline_coarsen(struct timeline *timeline, __s64 length_ns);

#endif
