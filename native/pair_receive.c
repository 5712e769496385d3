// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
/*
 * From the tap to the guest's receive ring, in one of two ways. Small packets
 * are read into the hand and copied: read() and the copy cost less than the
 * list of buffers that readv() has to bring into the kernel. Large ones go
 * straight to the guest's buffers, but for what has to be looked at first and
 * for what the buffers have no room: nothing is cut off. The size of the last
 * packets tells which way the next one is read.
 */
#include "pair.h"

enum {
	CACHE_LINE = 64,
	DISSECTED = 128, /* bytes that hold all headers but IPv6 extension and inner headers */
};

/* What there is to do with each packet of a turn. */
struct how {
	__u8 records;  /* a record may be in front */
	__u8 rehashes; /* a frame without a hash gets one */
	__u32 kept;    /* bytes of a frame that are looked at before the guest has them */
};

/* A packet that was read, and what is known of it. */
struct packet {
	struct vnet_hdr header;
	__u32 front;  /* bytes that the kernel and the hash stage put in front of the frame */
	__u32 length; /* of the frame */
	__u8 lacks_record;
	__u8 lacks_hash;
};

static struct how look(const struct vh_pair *pair)
{
	const struct vh_path *path = &pair->path;
	struct how how = {};

	if (path->records && path->tap_header == VNET_HDR_LEN)
		how.records = history_has_records(pair->history);
	how.rehashes = path->rehashes && path->guest_header == VNET_HDR_HASH_LEN &&
		       pair->history->reports;
	/* Without the record it should have a frame comes into the hand first. */
	if (how.rehashes && !how.records)
		how.kept = DISSECTED;
	else if (pair->is_filtered)
		how.kept = FILTER_BYTES;
	return how;
}

/* Of what read() and readv() give. Returns bytes, 0 if there is no packet, -1 after a fault. */
static ssize_t check_read(struct vh_pair *pair, ssize_t length)
{
	COUNT(pair->counters.receive.system_calls, 1);
	if (length >= 0)
		return length;
	if (errno == EAGAIN || errno == EINTR)
		return 0;
	return ring_fail(&pair->receive, errno == EFAULT ? VH_FAULT_MEMORY : VH_FAULT_DEVICE,
			 errno);
}

/*
 * Make out what was read: `length` bytes, of which those to look at are at
 * `from`. Returns whether the packet is for the guest, counted if not.
 */
static int make_out(struct vh_pair *pair, const struct how *how, const __u8 *from,
			   ssize_t length, struct packet *packet)
{
	struct vh_pair_traffic *traffic = &pair->counters.receive;
	__u32 front = pair->path.tap_header;
	int has_record = 0;

	if (length > front)
		has_record = how->records && is_record(from + front, length - front);
	if (has_record)
		front += VNET_RECORD_LEN;
	if (length <= front) {
		COUNT(traffic->dropped[VH_DROP_MALFORMED], 1);
		return 0;
	}
	packet->front = front;
	packet->length = length - front;
	if (pair->is_filtered && !filter_accepts(&pair->filter, from + front, packet->length)) {
		COUNT(traffic->dropped[VH_DROP_FILTERED], 1);
		return 0;
	}
	if (pair->path.tap_header == VNET_HDR_HASH_LEN) {
		take_reported_header(from, &packet->header);
	} else {
		packet->header = (struct vnet_hdr){};
		memcpy(&packet->header, from, VNET_HDR_LEN);
		if (has_record) /* its mark is not for the guest */
			memcpy(&packet->header.hash_value, from + VNET_HDR_LEN, 6);
		correct_header(&packet->header, has_record);
	}
	packet->lacks_record = how->records && !has_record;
	packet->lacks_hash = how->rehashes && !has_record &&
			     packet->header.hash_report == VNET_REPORT_NONE;
	COUNT(pair->counters.recorded, has_record);
	return 1;
}

static void rehash(struct vh_pair *pair, const __u8 *at, struct packet *packet)
{
	struct vnet_frame frame = { .data = at, .length = packet->length };

	COUNT(pair->counters.rehashed,
	      history_rehash(pair->history, pair->queue, &frame, &packet->header));
}

static void hand_over(struct vh_pair *pair, __u32 chains, __u32 frame)
{
	window_use(&pair->window, chains, pair->path.guest_header + (__u64)frame);
	COUNT(pair->counters.receive.packets, 1);
	COUNT(pair->counters.receive.bytes, frame);
	/* After large packets small ones are believed slowly: a wrong guess costs them less. */
	if (frame >= pair->expected)
		pair->expected = frame;
	else
		pair->expected -= (pair->expected - frame + 15) / 16;
}

/* By hand */

static __u64 now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
	return now.tv_sec * 1000ull + now.tv_nsec / 1000000;
}

static void take_in_hand(struct vh_pair *pair, __u8 *frame, const struct packet *packet)
{
	pair->in_hand.header = packet->header;
	pair->in_hand.frame = frame;
	pair->in_hand.length = packet->length;
	pair->in_hand.deadline = 0;
}

/* The packet in the hand finds not enough buffers. Returns 1 when it is dropped, 0 if it waits. */
static int wait_in_hand(struct vh_pair *pair)
{
	struct in_hand *in_hand = &pair->in_hand;
	__u64 now = now_ms();

	if (!in_hand->deadline)
		in_hand->deadline = now + PATIENCE;
	if (!pair->window.room || (!window_is_full(&pair->window) && now < in_hand->deadline))
		return 0;
	COUNT(pair->counters.receive.dropped[VH_DROP_NO_ROOM], 1);
	in_hand->length = 0;
	return 1;
}

/*
 * Copy the packet in the hand to the guest's buffers. Returns 1 when it is
 * delivered or dropped, 0 if it waits for buffers, -1 after a fault.
 */
static int deliver(struct vh_pair *pair)
{
	struct in_hand *in_hand = &pair->in_hand;
	__u32 header = pair->path.guest_header;
	__u64 needed = header + (__u64)in_hand->length;
	__s64 room = window_stock(&pair->window, needed);
	struct cursor cursor;
	__u32 chains;

	if (room < 0)
		return -1;
	if ((__u64)room < needed)
		return wait_in_hand(pair);
	cursor = window_cursor(&pair->window);
	chains = window_chains(&pair->window, needed);
	in_hand->header.num_buffers = chains;
	memcpy(in_hand->frame - header, &in_hand->header, header);
	cursor_write(&cursor, in_hand->frame - header, needed);
	hand_over(pair, chains, in_hand->length);
	in_hand->length = 0;
	return 1;
}

/* Have the buffers of the next packet come into the cache while the kernel is at work. */
static void prefetch_buffers(const struct vh_pair *pair)
{
	struct cursor cursor = window_cursor(&pair->window);
	__u64 left = pair->path.guest_header + (__u64)pair->expected, length = left;
	const __u8 *at;

	for (; left && (at = cursor_next(&cursor, &length)); length = left) {
		for (__u64 line = 0; line < length; line += CACHE_LINE)
			__builtin_prefetch(at + line, 1);
		left -= length;
	}
}

/* Read a packet into the hand. Returns 1, 0 if there is none, -1 after a fault. */
static int receive_by_hand(struct vh_pair *pair, const struct how *how)
{
	__u8 *at = pair->in_hand.bytes + HEADROOM;
	struct packet packet;
	ssize_t length;

	prefetch_buffers(pair);
	length = check_read(pair, read(pair->path.receive_fd, at, LARGEST));
	if (length <= 0)
		return length;
	if (!make_out(pair, how, at, length, &packet))
		return 1;
	at += packet.front;
	if (packet.lacks_hash)
		rehash(pair, at, &packet);
	take_in_hand(pair, at, &packet);
	return 1;
}

/* Straight to the guest */

/* Where the pieces of a packet are. */
struct pieces {
	__u32 offset;  /* in the guest's buffers, of what went there */
	__u32 direct;  /* bytes of it */
	__u32 spilled; /* bytes behind it, that are in the spill */
	__u8 head[VNET_HDR_HASH_LEN + DISSECTED]; /* what comes first */
};

static ssize_t read_pieces(struct vh_pair *pair, const struct how *how, __u32 head,
			   struct pieces *pieces)
{
	struct cursor cursor = window_cursor(&pair->window);
	struct iovec *spans = pair->spans;
	__u64 behind, room;
	__u32 count = 1;
	ssize_t length;

	pieces->offset = pair->path.guest_header + how->kept;
	spans[0] = (struct iovec){ .iov_base = pieces->head, .iov_len = head };
	cursor_skip(&cursor, pieces->offset);
	count += cursor_list(&cursor, pair->expected, spans + 1, VH_CHAIN_MAX - 2, &room);
	spans[count++] = (struct iovec){ .iov_base = pair->spill, .iov_len = LARGEST };
	length = check_read(pair, readv(pair->path.receive_fd, spans, count));

	behind = length > head ? length - head : 0;
	pieces->direct = behind < room ? behind : room;
	pieces->spilled = behind - pieces->direct;
	return length;
}

/* Put a packet together in the hand, of whose frame `kept` bytes are at `at`. */
static void join_in_hand(struct vh_pair *pair, const struct pieces *pieces, const __u8 *at,
			 __u32 kept, const struct packet *packet)
{
	__u8 *frame = pair->in_hand.bytes + HEADROOM;
	struct cursor cursor = window_cursor(&pair->window);

	memcpy(frame, at, kept);
	cursor_skip(&cursor, pieces->offset);
	cursor_read(&cursor, frame + kept, pieces->direct);
	memcpy(frame + kept + pieces->direct, pair->spill, pieces->spilled);
	take_in_hand(pair, frame, packet);
	COUNT(pair->counters.copied, 1);
}

/* Whether `at` holds all that the dissector would look at of a frame that goes on behind it. */
static int holds_headers(const struct vh_pair *pair, const __u8 *at, __u32 length)
{
	struct vnet_frame view = { .data = at, .length = length };
	struct vnet_headers headers;
	struct vnet_l3 l3;

	if (length <= DISSECTED)
		return 1;
	l3 = vnet_find_l3(&view, 0);
	if (l3.type == VNET_IPV6 && vnet_is_extension(at[l3.offset + 6]))
		return 0;
	if (!pair->history->tunnels)
		return 1;
	vnet_dissect_l3(&view, &headers, l3);
	return !vnet_may_be_tunnel(&headers);
}

/* As receive_by_hand(), but the packet may have been delivered already. */
static int receive_direct(struct vh_pair *pair, const struct how *how)
{
	__u32 head = pair->path.tap_header + (how->records ? VNET_RECORD_LEN : 0) + how->kept;
	struct pieces pieces;
	struct packet packet;
	struct cursor cursor;
	__u32 kept, chains;
	const __u8 *frame;
	ssize_t length;
	__u64 needed;
	__s64 room;

	length = read_pieces(pair, how, head, &pieces);
	if (length <= 0)
		return length;
	if (!make_out(pair, how, pieces.head, length, &packet))
		return 1;
	frame = pieces.head + packet.front;
	kept = head - packet.front < packet.length ? head - packet.front : packet.length;
	needed = pair->path.guest_header + (__u64)packet.length;
	room = window_stock(&pair->window, needed);
	if (room < 0)
		return -1;
	/* A frame without its record lies 8 bytes off. */
	if (packet.lacks_record || (__u64)room < needed ||
	    (packet.lacks_hash && !holds_headers(pair, frame, packet.length))) {
		join_in_hand(pair, &pieces, frame, kept, &packet);
		if (packet.lacks_hash) {
			rehash(pair, pair->in_hand.frame, &packet);
			pair->in_hand.header = packet.header;
		}
		return 1;
	}
	if (packet.lacks_hash)
		rehash(pair, frame, &packet);
	chains = window_chains(&pair->window, needed);
	packet.header.num_buffers = chains;
	cursor = window_cursor(&pair->window);
	cursor_write(&cursor, &packet.header, pair->path.guest_header);
	cursor_write(&cursor, frame, kept);
	if (pieces.spilled) {
		cursor_skip(&cursor, pieces.direct);
		cursor_write(&cursor, pair->spill, pieces.spilled);
		COUNT(pair->counters.copied, 1);
	}
	hand_over(pair, chains, packet.length);
	return 1;
}

/* Returns 1 when a packet was read, 0 if there is none or no buffer for it, -1 after a fault. */
static int receive_packet(struct vh_pair *pair, const struct how *how)
{
	int is_large = pair->expected > DIRECT;
	__s64 room = window_stock(&pair->window, is_large ? pair->expected : 1);

	if (room <= 0) {
		pair->starved = room == 0;
		return room;
	}
	return is_large ? receive_direct(pair, how) : receive_by_hand(pair, how);
}

int pair_receive(struct vh_pair *pair)
{
	const __u64 *bytes = &pair->counters.receive.bytes, most = *bytes + BATCH_BYTES;
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
	for (int i = 0; i < BATCH && result > 0 && *bytes < most; i++) {
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
