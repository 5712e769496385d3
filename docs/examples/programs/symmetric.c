// SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0
/*
 * Both directions of a flow get the same hash and queue, by any key: RSS, of
 * the two endpoints in order instead of source and destination.
 *
 * Hash types, key and table are those of the configuration.
 */
#include <vnet_hash.h>

static __always_inline void swap(__u32 *a, __u32 *b)
{
	__u32 kept = *a;

	*a = *b;
	*b = kept;
}

/* Whether the second endpoint goes first. Any order will do that both directions agree on. */
static __always_inline int is_backwards(const struct vnet_headers *headers, __u32 words)
{
	/* A mobile node's packets come from and go to its care-of address: not the endpoint. */
	const __u32 *address = headers->kind >= VNET_REPORT_IPV6_EX ? headers->final :
								      headers->address;

	for (__u32 i = 0; i < words; i++)
		if (address[i] != address[i + words])
			return address[i] > address[i + words];
	return (headers->ports & 0xffff) > headers->ports >> 16;
}

static __always_inline void put_in_order(struct vnet_headers *headers, __u32 words)
{
	if (!is_backwards(headers, words))
		return;
	for (__u32 i = 0; i < words; i++) {
		swap(&headers->address[i], &headers->address[i + words]);
		if (headers->kind >= VNET_REPORT_IPV6_EX)
			swap(&headers->final[i], &headers->final[i + words]);
	}
	headers->ports = headers->ports << 16 | headers->ports >> 16;
}

VNET_HASH_PROGRAM(frame, verdict)
{
	struct vnet_headers headers;

	vnet_dissect(frame, &headers);
	if (headers.kind >= VNET_REPORT_IPV6)
		put_in_order(&headers, 4);
	else if (headers.kind)
		put_in_order(&headers, 1);
	vnet_rss(&headers, verdict);
}
