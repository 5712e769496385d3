// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
/* From the guest's transmit ring to the tap. */
#include <errno.h>
#include <unistd.h>

#include "pair.h"

enum {
	ETHERNET_HEADER = 14,
};

/*
 * A large packet straight from the guest. Where the tap's header has another
 * size it is written with one of ours.
 */
static ssize_t write_direct(struct vh_pair *pair, const struct chain *chain)
{
	struct iovec *spans = pair->spans + 1;
	struct cursor cursor = { .span = spans, .end = spans + chain->readable };
	__u8 header[VNET_HDR_HASH_LEN] = {};
	struct iovec *first;

	if (pair->path.guest_header == pair->path.tap_header)
		return writev(pair->path.transmit_fd, spans, chain->readable);
	cursor_read(&cursor, header, VNET_HDR_LEN);
	cursor_skip(&cursor, pair->path.guest_header - VNET_HDR_LEN);
	/* The span where the frame begins loses its front, and the header goes before it. */
	first = pair->spans + (cursor.span - pair->spans);
	first->iov_base = (__u8 *)first->iov_base + cursor.offset;
	first->iov_len -= cursor.offset;
	*--first = (struct iovec){ .iov_base = header, .iov_len = pair->path.tap_header };
	return writev(pair->path.transmit_fd, first, cursor.end - first);
}

/*
 * A small packet costs less with write(), for which it is copied together.
 * The hash in a header of 20 bytes is for receiving and means nothing here.
 */
static ssize_t write_copy(struct vh_pair *pair, const struct chain *chain)
{
	const struct iovec *spans = pair->spans + 1;
	struct cursor cursor = { .span = spans, .end = spans + chain->readable };
	__u32 header = pair->path.tap_header;
	__u64 length;

	if (chain->readable == 1 && pair->path.guest_header == header)
		return write(pair->path.transmit_fd, spans->iov_base, spans->iov_len);
	memset(pair->sent, 0, VNET_HDR_HASH_LEN);
	cursor_read(&cursor, pair->sent, VNET_HDR_LEN);
	cursor_skip(&cursor, pair->path.guest_header - VNET_HDR_LEN);
	length = cursor_read(&cursor, pair->sent + header, DIRECT);
	return write(pair->path.transmit_fd, pair->sent, header + length);
}

/* Returns 1 when the chain was carried or dropped, 0 if the tap takes nothing now, -1. */
static int transmit_chain(struct vh_pair *pair, const struct chain *chain)
{
	struct vh_pair_traffic *traffic = &pair->counters.transmit;
	ssize_t written;
	__u64 frame;

	if (chain->writable)
		return ring_fail(&pair->transmit, VH_FAULT_DIRECTION, chain->head);
	if (chain->readable_length < (__u64)pair->path.guest_header + ETHERNET_HEADER) {
		COUNT(traffic->dropped[VH_DROP_MALFORMED], 1);
		return 1;
	}
	frame = chain->readable_length - pair->path.guest_header;
	written = frame > DIRECT ? write_direct(pair, chain) : write_copy(pair, chain);
	COUNT(traffic->system_calls, 1);
	if (written >= 0) {
		COUNT(traffic->packets, 1);
		COUNT(traffic->bytes, frame);
		return 1;
	}
	switch (errno) {
	case EAGAIN:
	case EINTR:
		return 0;
	case EFAULT:
		return ring_fail(&pair->transmit, VH_FAULT_MEMORY, 0);
	case EBADFD: /* the tap is gone, or the queue detached */
	case EBADF:
		return ring_fail(&pair->transmit, VH_FAULT_DEVICE, errno);
	case EINVAL:
	case EMSGSIZE:
		COUNT(traffic->dropped[VH_DROP_REFUSED], 1);
		return 1;
	default:
		COUNT(traffic->dropped[VH_DROP_DEVICE], 1);
		return 1;
	}
}

int pair_transmit(struct vh_pair *pair)
{
	const __u64 *bytes = &pair->counters.transmit.bytes, most = *bytes + BATCH_BYTES;
	struct ring *ring = &pair->transmit;
	struct chain chain;
	int result = 1;

	pair->at_work = ring;
	pair->blocked = 0;
	for (int i = 0; i < BATCH && result > 0 && *bytes < most; i++) {
		result = ring_fetch(ring, &chain, pair->spans + 1);
		if (result <= 0)
			break;
		result = transmit_chain(pair, &chain);
		if (result > 0) {
			ring_use(ring, chain.head, 0);
		} else if (result == 0) {
			ring_unfetch(ring);
			pair->blocked = 1;
		}
	}
	COUNT(pair->counters.transmit.calls, ring_publish(ring));
	return result;
}
