// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
#include "window.h"

void window_reset(struct window *window, struct ring *ring, int mergeable)
{
	window->ring = ring;
	window->mergeable = mergeable;
	window->first_chain = window->last_chain = 0;
	window->first_span = window->last_span = 0;
	window->descriptors = 0;
	window->room = 0;
}

/* Move what is left to the front of the arrays. */
static void compact(struct window *window)
{
	window->last_chain -= window->first_chain;
	window->last_span -= window->first_span;
	memmove(window->chains, window->chains + window->first_chain,
		window->last_chain * sizeof(window->chains[0]));
	memmove(window->spans, window->spans + window->first_span,
		window->last_span * sizeof(window->spans[0]));
	window->first_chain = window->first_span = 0;
}

int window_fetch(struct window *window)
{
	struct chain *chain;
	int result;

	/* As soon as it moves no more than was used: what is worked on stays in the cache. */
	if (window->first_span > SLACK && window->first_span > window->last_span / 2)
		compact(window);
	if (window->last_span + VH_CHAIN_MAX > WINDOW)
		return 0;
	chain = &window->chains[window->last_chain];
	result = ring_fetch(window->ring, chain, window->spans + window->last_span);
	if (result <= 0)
		return result;
	if (chain->readable)
		return ring_fail(window->ring, VH_FAULT_DIRECTION, chain->head);
	if (!chain->writable)
		return ring_fail(window->ring, VH_FAULT_EMPTY, chain->head);
	window->last_chain++;
	window->last_span += chain->writable;
	window->descriptors += chain->descriptors;
	window->room += chain->writable_length;
	return 1;
}

int window_is_full(const struct window *window)
{
	return !window->mergeable || window->descriptors >= window->ring->size ||
	       window->last_span - window->first_span > WINDOW / 2 - VH_CHAIN_MAX;
}

void window_use(struct window *window, __u32 count, __u64 bytes)
{
	while (count--) {
		const struct chain *chain = &window->chains[window->first_chain++];
		__u64 length = chain->writable_length < bytes ? chain->writable_length : bytes;

		if (window->ring->memory->log)
			ring_log_spans(window->ring, window->spans + window->first_span, length);
		ring_use(window->ring, chain->head, length);
		bytes -= length;
		window->room -= chain->writable_length;
		window->descriptors -= chain->descriptors;
		window->first_span += chain->writable;
	}
	if (window->first_chain == window->last_chain)
		window->first_chain = window->last_chain = window->first_span =
			window->last_span = 0;
}
