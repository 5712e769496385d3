// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
/* From the guest's transmit ring to the tap. */
#include <errno.h>

#include "pair.h"

enum {
	ETHERNET_HEADER = 14,
};

/*
 * What to write to the tap: the chain as it is, or, where the tap's header has
 * another size, a header of ours and the frame. The hash in a header of 20
 * bytes is for receiving and means nothing here.
 */
static __u32 list_packet(struct vh_pair *pair, const struct chain *chain, __u8 *header,
			 struct iovec **spans)
{
	struct cursor cursor = { .span = pair->spans + 1,
				 .end = pair->spans + 1 + chain->readable };
	__u32 used;

	*spans = pair->spans + 1;
	if (pair->path.guest_header == pair->path.tap_header)
		return chain->readable;
	cursor_read(&cursor, header, VNET_HDR_LEN);
	cursor_skip(&cursor, pair->path.guest_header - VNET_HDR_LEN);
	/* The span where the frame begins loses its front, and the header goes before it. */
	used = cursor.span - pair->spans;
	pair->spans[used].iov_base = (__u8 *)pair->spans[used].iov_base + cursor.offset;
	pair->spans[used].iov_len -= cursor.offset;
	*spans = &pair->spans[used - 1];
	**spans = (struct iovec){ .iov_base = header, .iov_len = pair->path.tap_header };
	return chain->readable + 2 - used;
}

/* Returns 1 when the chain was carried or dropped, 0 if the tap takes nothing now, -1. */
static int transmit_chain(struct vh_pair *pair, const struct chain *chain)
{
	struct vh_pair_traffic *traffic = &pair->counters.transmit;
	__u8 header[VNET_HDR_HASH_LEN] = {};
	struct iovec *spans;
	ssize_t written;
	__u32 count;

	if (chain->writable)
		return ring_fail(&pair->transmit, VH_FAULT_DIRECTION, chain->head);
	if (chain->readable_length < (__u64)pair->path.guest_header + ETHERNET_HEADER) {
		COUNT(traffic->dropped[VH_DROP_MALFORMED], 1);
		return 1;
	}
	count = list_packet(pair, chain, header, &spans);
	do {
		written = writev(pair->path.transmit_fd, spans, count);
		COUNT(traffic->system_calls, 1);
	} while (written < 0 && errno == EINTR);
	if (written >= 0) {
		COUNT(traffic->packets, 1);
		COUNT(traffic->bytes, chain->readable_length - pair->path.guest_header);
		return 1;
	}
	switch (errno) {
	case EAGAIN:
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
	struct ring *ring = &pair->transmit;
	struct chain chain;
	int result = 1;

	pair->at_work = ring;
	pair->blocked = 0;
	for (int i = 0; i < BATCH && result > 0; i++) {
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
