// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
/* Where the frames of a capture lie. */
#include <string.h>

#include "api.h"
#include "capture.h"

#define inline_always static inline __attribute__((always_inline))

enum record {
	RECORD_HEAD = 16, /* of pcap: seconds, ticks, captured, original */
	BLOCK_HEAD = 8,   /* of pcapng: type, length; the length again is behind its body */
	BLOCK_MIN = 12,
	ENHANCED_HEAD = 20,
	SIMPLE_HEAD = 4,
};

enum block {
	BLOCK_INTERFACE = 1,
	BLOCK_PACKET = 2, /* obsolete */
	BLOCK_SIMPLE = 3,
	BLOCK_ENHANCED = 6,
	BLOCK_SECTION = 0x0a0d0d0a,
};

inline_always __u32 word(const __u8 *at, int is_swapped)
{
	__u32 value;

	memcpy(&value, at, sizeof(value));
	return is_swapped ? __builtin_bswap32(value) : value;
}

inline_always __s64 nanoseconds(const struct vh_interface *interface, __u64 ticks)
{
	__int128 time = (unsigned __int128)ticks * interface->multiply >> interface->shift;

	if (interface->divide != 1)
		time = (unsigned __int128)time / interface->divide;
	time += (__int128)interface->offset * 1000000000;
	return time > VH_TIME_MAX || time < -VH_TIME_MAX ? VH_NO_TIME : (__s64)time;
}

/* Whether the lengths are such as a frame can have. */
inline_always int is_sane(const struct vh_interface *interface, __u32 captured, __u32 original)
{
	if (captured > VH_FRAME_MAX)
		return 0;
	return !interface->snaplen || captured <= interface->snaplen || captured <= original;
}

inline_always void walk_pcap(const struct vh_capture *capture, const __u8 *memory, __u64 size,
			     struct vh_frame *frames, __u32 max, int is_swapped,
			     struct vh_walked *walked)
{
	const struct vh_interface *interface = capture->interface;
	__u64 at = 0;
	__u32 found;

	walked->end = VH_WALK_FULL;
	for (found = 0; found < max; found++) {
		const __u8 *record = memory + at;
		__u32 captured, original;

		if (size - at < RECORD_HEAD) {
			walked->end = VH_WALK_MORE;
			break;
		}
		captured = word(record + 8, is_swapped);
		original = word(record + 12, is_swapped);
		if (!is_sane(interface, captured, original)) {
			walked->end = VH_WALK_ASK;
			break;
		}
		if (size - at - RECORD_HEAD < captured) {
			walked->end = VH_WALK_MORE;
			break;
		}
		/* Ticks are microseconds or nanoseconds, seconds beside them; no product overflows. */
		frames[found] = (struct vh_frame){
			.offset = at + RECORD_HEAD,
			.time_ns = word(record, is_swapped) * 1000000000ull +
				   word(record + 4, is_swapped) * interface->multiply,
			.length = captured,
			.original = original,
			.link_type = interface->link_type,
		};
		at += RECORD_HEAD + captured;
	}
	walked->used = at;
	walked->frames = found;
}

/* The frame of a packet block with a body of `room` bytes; 0 if it cannot be. */
inline_always int read_block(const struct vh_capture *capture, const __u8 *body, __u32 room,
			     __u32 type, int is_swapped, struct vh_frame *frame)
{
	const struct vh_interface *interface;
	__u32 number = 0, captured, original;
	__u64 ticks;

	if (type == BLOCK_SIMPLE) {
		if (room < SIMPLE_HEAD || !capture->interfaces)
			return 0;
		interface = capture->interface;
		original = word(body, is_swapped);
		captured = original;
		if (interface->snaplen && captured > interface->snaplen)
			captured = interface->snaplen;
		if (captured > room - SIMPLE_HEAD)
			return 0;
		frame->offset = SIMPLE_HEAD;
		frame->time_ns = VH_NO_TIME;
	} else {
		if (room < ENHANCED_HEAD)
			return 0;
		if (type == BLOCK_ENHANCED) {
			number = word(body, is_swapped);
		} else {
			number = body[0] | body[1] << 8;
			if (is_swapped)
				number = __builtin_bswap16(number);
		}
		if (number >= capture->interfaces)
			return 0;
		interface = capture->interface + number;
		ticks = (__u64)word(body + 4, is_swapped) << 32 | word(body + 8, is_swapped);
		captured = word(body + 12, is_swapped);
		original = word(body + 16, is_swapped);
		/* Which is a multiple of 4, as the length of the block is: the padding is in it. */
		if (captured > room - ENHANCED_HEAD)
			return 0;
		frame->offset = ENHANCED_HEAD;
		frame->time_ns = nanoseconds(interface, ticks);
	}
	if (!is_sane(interface, captured, original))
		return 0;
	frame->length = captured;
	frame->original = original;
	frame->link_type = interface->link_type;
	return 1;
}

inline_always void walk_pcapng(const struct vh_capture *capture, const __u8 *memory, __u64 size,
			       struct vh_frame *frames, __u32 max, int is_swapped,
			       struct vh_walked *walked)
{
	__u64 at = 0;
	__u32 found = 0;

	walked->end = VH_WALK_FULL;
	while (found < max) {
		const __u8 *block = memory + at;
		__u32 type, length;

		if (size - at < BLOCK_HEAD) {
			walked->end = VH_WALK_MORE;
			break;
		}
		type = word(block, is_swapped);
		length = word(block + 4, is_swapped);
		walked->end = VH_WALK_ASK;
		/* A section says itself in which byte order its length is. */
		if (type == BLOCK_SECTION || type == BLOCK_INTERFACE || length < BLOCK_MIN ||
		    length % 4)
			break;
		if (size - at < length) {
			walked->end = VH_WALK_MORE;
			break;
		}
		if (word(block + length - 4, is_swapped) != length)
			break;
		if (type == BLOCK_ENHANCED || type == BLOCK_SIMPLE || type == BLOCK_PACKET) {
			if (!read_block(capture, block + BLOCK_HEAD, length - BLOCK_MIN, type,
					is_swapped, frames + found))
				break;
			frames[found++].offset += at + BLOCK_HEAD;
		}
		at += length;
		walked->end = VH_WALK_FULL;
	}
	walked->used = at;
	walked->frames = found;
}

API void vh_capture_walk(const struct vh_capture *capture, const __u8 *memory, __u64 size,
			 struct vh_frame *frames, __u32 max, struct vh_walked *walked)
{
	/* Each byte order has a loop of its own, without the question in it. */
	if (capture->is_pcapng && capture->is_swapped)
		walk_pcapng(capture, memory, size, frames, max, 1, walked);
	else if (capture->is_pcapng)
		walk_pcapng(capture, memory, size, frames, max, 0, walked);
	else if (capture->is_swapped)
		walk_pcap(capture, memory, size, frames, max, 1, walked);
	else
		walk_pcap(capture, memory, size, frames, max, 0, walked);
}
