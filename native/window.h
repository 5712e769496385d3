/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/*
 * The receive ring's chains that were fetched and are not used yet, in order.
 * The next packet goes into the first of them.
 */
#ifndef VNETHASH_WINDOW_H
#define VNETHASH_WINDOW_H

#include "ring.h"
#include "span.h"

enum {
	WINDOW = 8 * VH_CHAIN_MAX, /* spans that may be fetched ahead */
	SLACK = 64,                /* used ones that stay in front of them */
};

struct window {
	struct ring *ring;
	int mergeable;     /* a packet may take several chains */
	__u32 first_chain, last_chain;
	__u32 first_span, last_span;
	__u32 descriptors; /* of the ring's table, of all chains */
	__u64 room;        /* bytes of all chains */
	struct chain chains[WINDOW];
	struct iovec spans[WINDOW];
};

/* Nothing is fetched. */
void window_reset(struct window *window, struct ring *ring, int mergeable);

/* Fetch one chain more. Returns 1, 0 if there is none or no room for it, -1 after a fault. */
int window_fetch(struct window *window);

/* No more can be fetched: the guest has nothing left to lend, or we no room for it. */
int window_is_full(const struct window *window);

/* Hand the first `count` chains over, with a packet of `bytes` bytes in them. */
void window_use(struct window *window, __u32 count, __u64 bytes);

/* The room there is for one packet. */
static inline __u64 window_room(const struct window *window)
{
	if (window->mergeable || !window->room)
		return window->room;
	return window->chains[window->first_chain].writable_length;
}

/* Have `bytes` of room for one packet, or as much as there is; -1 after a fault. */
static inline __s64 window_stock(struct window *window, __u64 bytes)
{
	int result = 1;

	while (result > 0 && (window->mergeable ? window->room < bytes : !window->room))
		result = window_fetch(window);
	return result < 0 ? -1 : (__s64)window_room(window);
}

/* The spans that the next packet may take. */
static inline struct cursor window_cursor(const struct window *window)
{
	const struct iovec *first = window->spans + window->first_span;
	__u32 count = window->mergeable ? window->last_span - window->first_span
					: window->chains[window->first_chain].writable;

	return (struct cursor){ .span = first, .end = first + count };
}

/* How many chains a packet of `bytes` bytes takes, for which there is room. */
static inline __u32 window_chains(const struct window *window, __u64 bytes)
{
	const struct chain *chain = &window->chains[window->first_chain];
	__u32 count = 1;

	for (__u64 covered = chain->writable_length; covered < bytes; count++)
		covered += (++chain)->writable_length;
	return count;
}

#endif
