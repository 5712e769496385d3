// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
/*
 * From the tap to the guest's receive ring. One readv() puts a frame straight
 * into the guest's buffers: what has to be looked at goes to `head` first, and
 * what the buffers have no room for to a spill of ours, so that nothing is cut
 * off. Whatever does not fit that is put together in the hand and copied.
 */
#include "pair.h"

/* What there is to do with each packet of a turn. */
struct how {
	__u32 head;      /* bytes read to our own memory first: headers, and what is looked at */
	__u32 kept;      /* of them, bytes of a frame that came behind a record or without */
	__u8 records;    /* a record may be in front */
	__u8 rehashes;   /* a frame without a hash gets one */
};

/* A packet as it was read. */
struct reading {
	struct vnet_hdr header;
	__u32 frame;     /* bytes of the frame */
	__u32 direct;    /* bytes that went to the guest's buffers, from `offset` of them on */
	__u32 offset;
	__u32 spilled;
	__u8 has_record;
	__u8 has_hash;
	__u8 at[VNET_HDR_HASH_LEN + DISSECTED]; /* the head */
};

static struct how look(const struct vh_pair *pair)
{
	const struct vh_path *path = &pair->path;
	struct how how = { .head = path->tap_header };
	int reports = path->guest_header == VNET_HDR_HASH_LEN;

	if (path->records && path->tap_header == VNET_HDR_LEN) {
		how.records = history_has_records(pair->history);
		how.head += how.records ? VNET_RECORD_LEN : 0;
	}
	how.rehashes = reports && path->rehashes && pair->history->reports;
	/* A frame without a record lies 8 bytes off: it is put together, and looked at then. */
	if (how.rehashes && !how.records)
		how.kept = DISSECTED;
	else if (pair->is_filtered)
		how.kept = FILTER_BYTES;
	how.head += how.kept;
	return how;
}

/* The window of fetched chains */

static struct cursor window_cursor(const struct window *window)
{
	return (struct cursor){ .span = window->spans + window->first_span,
				.end = window->spans + window->last_span };
}

/* Make room for another chain at the end of the arrays. */
static void window_compact(struct window *window)
{
	__u32 chains = window->last_chain - window->first_chain;
	__u32 spans = window->last_span - window->first_span;

	memmove(window->chains, window->chains + window->first_chain,
		chains * sizeof(window->chains[0]));
	memmove(window->spans, window->spans + window->first_span,
		spans * sizeof(window->spans[0]));
	window->first_chain = window->first_span = 0;
	window->last_chain = chains;
	window->last_span = spans;
}

/* Fetch one chain more. Returns 1, 0 if there is none or no room for it, -1 after a fault. */
static int window_fetch(struct vh_pair *pair)
{
	struct window *window = &pair->window;
	struct chain *chain;
	int result;

	/* As soon as it moves no more than was used: what is worked on stays in the cache. */
	if (window->first_span > SLACK && window->first_span > window->last_span / 2)
		window_compact(window);
	if (window->last_span + VH_CHAIN_MAX > WINDOW)
		return 0;
	chain = &window->chains[window->last_chain];
	result = ring_fetch(&pair->receive, chain, window->spans + window->last_span);
	if (result <= 0)
		return result;
	if (chain->readable)
		return ring_fail(&pair->receive, VH_FAULT_DIRECTION, chain->head);
	if (!chain->writable)
		return ring_fail(&pair->receive, VH_FAULT_EMPTY, chain->head);
	window->last_chain++;
	window->last_span += chain->writable;
	window->room += chain->writable_length;
	window->descriptors += chain->descriptors;
	return 1;
}

/*
 * Have `bytes` of buffers for one packet, or as many as there are. Returns how
 * many, -1 after a fault.
 */
static __s64 window_stock(struct vh_pair *pair, __u64 bytes)
{
	struct window *window = &pair->window;
	int mergeable = pair->path.mergeable;
	int result = 1;

	while (result > 0 && (mergeable ? window->room < bytes
					: window->first_chain == window->last_chain))
		result = window_fetch(pair);
	if (result < 0)
		return -1;
	if (window->first_chain == window->last_chain)
		return 0;
	return mergeable ? window->room : window->chains[window->first_chain].writable_length;
}

/* The guest has no more descriptors to bring buffers with, or we no room for them. */
static int window_is_full(const struct vh_pair *pair)
{
	return !pair->path.mergeable || pair->window.descriptors >= pair->receive.size ||
	       pair->window.last_span - pair->window.first_span + VH_CHAIN_MAX > WINDOW / 2;
}

/* Write the header in front of a frame that is in its place, and hand the chains over. */
static void give(struct vh_pair *pair, struct vnet_hdr *header, __u32 frame)
{
	struct vh_pair_traffic *traffic = &pair->counters.receive;
	__u64 left = pair->path.guest_header + (__u64)frame;
	struct window *window = &pair->window;
	struct cursor cursor = window_cursor(window);
	__u32 last = window->first_chain;

	for (__u64 covered = window->chains[last].writable_length; covered < left;)
		covered += window->chains[++last].writable_length;
	header->num_buffers = last + 1 - window->first_chain;
	cursor_write(&cursor, header, pair->path.guest_header);

	while (window->first_chain <= last) {
		const struct chain *chain = &window->chains[window->first_chain++];
		__u64 length = chain->writable_length < left ? chain->writable_length : left;

		if (pair->memory->log)
			ring_log_spans(&pair->receive, window->spans + window->first_span, length);
		ring_use(&pair->receive, chain->head, length);
		left -= length;
		window->room -= chain->writable_length;
		window->descriptors -= chain->descriptors;
		window->first_span += chain->writable;
	}
	if (window->first_chain == window->last_chain)
		window->first_chain = window->last_chain = window->first_span =
			window->last_span = 0;
	COUNT(traffic->packets, 1);
	COUNT(traffic->bytes, frame);
}

/* A packet in the hand */

static __u64 now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
	return now.tv_sec * 1000ull + now.tv_nsec / 1000000;
}

/*
 * Copy the packet in the hand to the guest's buffers. Returns 1 when it is
 * delivered or dropped, 0 if it waits for buffers, -1 after a fault.
 */
static int deliver(struct vh_pair *pair)
{
	struct in_hand *in_hand = &pair->in_hand;
	__u64 needed = pair->path.guest_header + (__u64)in_hand->length;
	__s64 room = window_stock(pair, needed);
	struct cursor cursor;

	if (room < 0)
		return -1;
	if ((__u64)room < needed) {
		if (!in_hand->deadline)
			in_hand->deadline = now_ms() + PATIENCE;
		if (room && (window_is_full(pair) || now_ms() >= in_hand->deadline)) {
			COUNT(pair->counters.receive.dropped[VH_DROP_NO_ROOM], 1);
			in_hand->length = 0;
			return 1;
		}
		return 0;
	}
	cursor = window_cursor(&pair->window);
	cursor_skip(&cursor, pair->path.guest_header);
	cursor_write(&cursor, in_hand->frame, in_hand->length);
	give(pair, &in_hand->header, in_hand->length);
	in_hand->length = 0;
	return 1;
}

/* Put the frame together in the hand, from its three pieces. */
static void take_in_hand(struct vh_pair *pair, const struct how *how,
			 const struct reading *reading)
{
	struct in_hand *in_hand = &pair->in_hand;
	__u32 start = pair->path.tap_header + (reading->has_record ? VNET_RECORD_LEN : 0);
	__u32 length = how->head - start;
	struct cursor cursor = window_cursor(&pair->window);

	if (length > reading->frame)
		length = reading->frame;
	memcpy(in_hand->frame, reading->at + start, length);
	cursor_skip(&cursor, reading->offset);
	cursor_read(&cursor, in_hand->frame + length, reading->direct);
	memcpy(in_hand->frame + length + reading->direct, pair->spill, reading->spilled);
	in_hand->header = reading->header;
	in_hand->length = reading->frame;
	in_hand->deadline = 0;
	COUNT(pair->counters.copied, 1);
}

/* A packet that is being read */

/* Read one packet, into what buffers there are. Returns its bytes, 0 if there is none, or -errno. */
static ssize_t read_tap(struct vh_pair *pair, const struct how *how, __u64 room,
			struct reading *reading)
{
	struct cursor cursor = window_cursor(&pair->window);
	struct iovec *spans = pair->spans;
	__u64 behind, direct = 0;
	__u32 count = 1;
	ssize_t length;

	reading->offset = pair->path.guest_header + how->kept;
	spans[0] = (struct iovec){ .iov_base = reading->at, .iov_len = how->head };
	if (room > pair->offered)
		room = pair->offered;
	if (room > reading->offset) {
		cursor_skip(&cursor, reading->offset);
		count += cursor_list(&cursor, room - reading->offset, spans + 1, VH_CHAIN_MAX - 2,
				     &direct);
	}
	spans[count++] = (struct iovec){ .iov_base = pair->spill, .iov_len = LARGEST };
	do {
		length = readv(pair->path.receive_fd, spans, count);
		COUNT(pair->counters.receive.system_calls, 1);
	} while (length < 0 && errno == EINTR);
	if (length < 0)
		return errno == EAGAIN ? 0 : -errno;

	behind = length > how->head ? length - how->head : 0;
	reading->direct = behind < direct ? behind : direct;
	reading->spilled = behind - reading->direct;
	return length;
}

/* What stands in front of the frame. Returns 0 for something too short to be a packet. */
static int take_header(const struct vh_pair *pair, const struct how *how, ssize_t length,
		       struct reading *reading)
{
	struct vnet_hdr *header = &reading->header;
	const __u8 *behind = reading->at + pair->path.tap_header;

	if (length <= pair->path.tap_header)
		return 0;
	reading->frame = length - pair->path.tap_header;
	reading->has_record = how->records && is_record(behind, reading->frame);
	if (pair->path.tap_header == VNET_HDR_HASH_LEN) {
		take_reported_header(reading->at, header);
	} else {
		*header = (struct vnet_hdr){};
		memcpy(header, reading->at, VNET_HDR_LEN);
		if (reading->has_record)
			memcpy(&header->hash_value, behind, 6); /* its mark is not for the guest */
		correct_header(header, reading->has_record);
	}
	reading->has_hash = reading->has_record || header->hash_report != VNET_REPORT_NONE;
	if (reading->has_record)
		reading->frame -= VNET_RECORD_LEN;
	return reading->frame != 0;
}

/* Whether `at` holds all that the dissector would look at of a frame that goes on behind it. */
static int holds_headers(const __u8 *at, __u32 length)
{
	struct vnet_frame view = { .data = at, .length = length };
	struct vnet_l3 l3;

	if (length <= DISSECTED)
		return 1;
	l3 = vnet_find_l3(&view, 0);
	return l3.type != VNET_IPV6 || !vnet_is_extension(at[l3.offset + 6]);
}

static void rehash(struct vh_pair *pair, const __u8 *at, __u32 length, struct vnet_hdr *header)
{
	struct vnet_frame frame = { .data = at, .length = length };

	COUNT(pair->counters.rehashed,
	      history_rehash(pair->history, pair->queue, &frame, header));
}

/* The next read is offered what a packet like the last would need; small ones pay for few. */
static void learn(struct vh_pair *pair, __u32 bytes)
{
	if (bytes > pair->offered)
		pair->offered = bytes;
	else
		pair->offered -= (pair->offered - bytes) / 16;
	if (pair->offered < USUAL)
		pair->offered = USUAL;
}

/*
 * Carry one packet. Returns 1 when one was read, 0 if there is none or no
 * buffer for it, -1 after a fault.
 */
static int receive_packet(struct vh_pair *pair, const struct how *how)
{
	struct vh_pair_traffic *traffic = &pair->counters.receive;
	struct reading reading;
	struct cursor cursor;
	const __u8 *frame;
	ssize_t length;
	__u64 needed;
	__s64 room;
	int by_hand;

	room = window_stock(pair, pair->offered);
	if (room <= 0) {
		pair->starved = room == 0;
		return room;
	}
	length = read_tap(pair, how, room, &reading);
	if (length == 0)
		return 0;
	if (length < 0)
		return ring_fail(&pair->receive,
				 length == -EFAULT ? VH_FAULT_MEMORY : VH_FAULT_DEVICE, -length);
	if (!take_header(pair, how, length, &reading)) {
		COUNT(traffic->dropped[VH_DROP_MALFORMED], 1);
		return 1;
	}
	frame = reading.at + pair->path.tap_header + (reading.has_record ? VNET_RECORD_LEN : 0);
	if (pair->is_filtered && !filter_accepts(&pair->filter, frame, reading.frame)) {
		COUNT(traffic->dropped[VH_DROP_FILTERED], 1);
		return 1;
	}
	COUNT(pair->counters.recorded, reading.has_record);

	needed = pair->path.guest_header + (__u64)reading.frame;
	learn(pair, needed);
	room = window_stock(pair, needed);
	if (room < 0)
		return -1;
	by_hand = (__u64)room < needed || (how->records && !reading.has_record);
	if (how->rehashes && !reading.has_hash) {
		if (by_hand || !holds_headers(frame, reading.frame))
			by_hand = 2;
		else
			rehash(pair, frame, reading.frame, &reading.header);
	}
	if (by_hand) {
		take_in_hand(pair, how, &reading);
		if (by_hand == 2)
			rehash(pair, pair->in_hand.frame, reading.frame, &pair->in_hand.header);
		return 1;
	}

	cursor = window_cursor(&pair->window);
	cursor_skip(&cursor, pair->path.guest_header);
	cursor_write(&cursor, frame, how->kept < reading.frame ? how->kept : reading.frame);
	if (reading.spilled) {
		cursor_skip(&cursor, reading.direct);
		cursor_write(&cursor, pair->spill, reading.spilled);
		COUNT(pair->counters.copied, 1);
	}
	give(pair, &reading.header, reading.frame);
	return 1;
}

int pair_receive(struct vh_pair *pair)
{
	struct how how;
	int result = 1;

	pair->at_work = &pair->receive;
	pair->starved = 0;
	if (pair->path.records || pair->path.rehashes) {
		/* None meets a packet of a configuration that is not in the history yet. */
		pthread_rwlock_rdlock(&pair->history->lock);
		pair->locked = 1;
	}
	how = look(pair);
	for (int i = 0; i < BATCH && result > 0; i++) {
		if (!pair->in_hand.length)
			result = receive_packet(pair, &how);
		if (result > 0 && pair->in_hand.length) {
			result = deliver(pair);
			pair->starved = result == 0;
		}
	}
	pair_unlock(pair);
	COUNT(pair->counters.receive.calls, ring_publish(&pair->receive));
	return result;
}
