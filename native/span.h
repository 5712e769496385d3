/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* Bytes that lie in several pieces. */
#ifndef VNETHASH_SPAN_H
#define VNETHASH_SPAN_H

#include <string.h>
#include <sys/uio.h>

#include "core.h"

/* A place in a list of spans: `offset` bytes into the first of them. */
struct cursor {
	const struct iovec *span;
	const struct iovec *end;
	__u64 offset;
};

static inline void cursor_skip(struct cursor *cursor, __u64 bytes)
{
	bytes += cursor->offset;
	while (cursor->span < cursor->end && bytes >= cursor->span->iov_len)
		bytes -= cursor->span++->iov_len;
	cursor->offset = bytes;
}

/* The next piece of at most `*length` bytes, to which it sets it; NULL at the end. */
static inline __u8 *cursor_next(struct cursor *cursor, __u64 *length)
{
	__u64 left;
	__u8 *at;

	if (cursor->span == cursor->end)
		return NULL;
	left = cursor->span->iov_len - cursor->offset;
	at = (__u8 *)cursor->span->iov_base + cursor->offset;
	if (*length < left) {
		cursor->offset += *length;
		return at;
	}
	*length = left;
	cursor->span++;
	cursor->offset = 0;
	return at;
}

/* Each returns how many bytes it copied: fewer only at the end of the spans. */
static inline __u64 cursor_write(struct cursor *cursor, const void *from, __u64 size)
{
	__u64 done = 0, length = size;
	__u8 *to;

	while (done < size && (to = cursor_next(cursor, &length))) {
		memcpy(to, (const __u8 *)from + done, length);
		done += length;
		length = size - done;
	}
	return done;
}

static inline __u64 cursor_read(struct cursor *cursor, void *to, __u64 size)
{
	__u64 done = 0, length = size;
	const __u8 *from;

	while (done < size && (from = cursor_next(cursor, &length))) {
		memcpy((__u8 *)to + done, from, length);
		done += length;
		length = size - done;
	}
	return done;
}

/* List spans that have `bytes` bytes or more, `max` at most; returns how many. */
static inline __u32 cursor_list(struct cursor *cursor, __u64 bytes, struct iovec *spans, __u32 max,
				__u64 *listed)
{
	__u64 length = ~0ull;
	__u32 count = 0;
	__u8 *at;

	*listed = 0;
	while (*listed < bytes && count < max && (at = cursor_next(cursor, &length))) {
		spans[count++] = (struct iovec){ .iov_base = at, .iov_len = length };
		*listed += length;
		length = ~0ull;
	}
	return count;
}

#endif
