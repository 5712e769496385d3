// SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0
/*
 * RSS by the inner headers of a tunnel: VXLAN (RFC 7348) and GRE (RFC 2784,
 * 2890), over IPv4 or IPv6. All flows of one tunnel have the same outer
 * addresses, and would share a queue.
 *
 * What is no such tunnel, or carries no IP, is hashed by its outer headers.
 * One level is unwrapped; extension headers in front of a tunnel are not.
 */
#include <vnet_hash.h>

#ifndef VXLAN_PORT
#define VXLAN_PORT 4789
#endif

enum {
	UDP = 17,
	GRE = 47,
	VXLAN_HAS_ID = 0x08, /* the I flag: without it this is something else */
	TRANSPARENT_ETHERNET = 0x6558,
	GRE_CHECKSUM = 0x8000,
	GRE_KEY = 0x2000,
	GRE_SEQUENCE = 0x1000,
	GRE_UNKNOWN = 0x4fff, /* routing, reserved bits, and any version but 0 */
};

/* What an IP packet carries. */
struct payload {
	__u32 offset;
	__u8 protocol; /* 0: nothing we could look into */
};

static __always_inline struct payload ip_payload(const struct vnet_frame *frame, struct vnet_l3 l3)
{
	struct payload payload = {};
	const __u8 *ip;

	if (l3.type == VNET_IPV4) {
		ip = vnet_at(frame, l3.offset, 20);
		if (ip && !(vnet_be16(ip + 6) & 0x3fff)) { /* no fragment */
			payload.offset = l3.offset + (ip[0] & 15) * 4;
			payload.protocol = ip[9];
		}
	} else if (l3.type == VNET_IPV6) {
		ip = vnet_at(frame, l3.offset, 40);
		if (ip) {
			payload.offset = l3.offset + 40;
			payload.protocol = ip[6];
		}
	}
	return payload;
}

static __always_inline struct vnet_l3 inside_vxlan(const struct vnet_frame *frame, __u32 udp)
{
	const __u8 *at = vnet_at(frame, udp, 16); /* UDP and VXLAN */

	if (!at || vnet_be16(at + 2) != VXLAN_PORT || !(at[8] & VXLAN_HAS_ID))
		return (struct vnet_l3){};
	return vnet_find_l3(frame, udp + 16);
}

static __always_inline struct vnet_l3 inside_gre(const struct vnet_frame *frame, __u32 gre)
{
	const __u8 *at = vnet_at(frame, gre, 4);
	__u16 flags, type;

	if (!at)
		return (struct vnet_l3){};
	flags = vnet_be16(at);
	type = vnet_be16(at + 2);
	if (flags & GRE_UNKNOWN)
		return (struct vnet_l3){};
	gre += 4;
	if (flags & GRE_CHECKSUM)
		gre += 4;
	if (flags & GRE_KEY)
		gre += 4;
	if (flags & GRE_SEQUENCE)
		gre += 4;
	if (type == TRANSPARENT_ETHERNET)
		return vnet_find_l3(frame, gre);
	return (struct vnet_l3){ .offset = gre, .type = type };
}

VNET_HASH_PROGRAM(frame, verdict)
{
	struct vnet_l3 outer = vnet_frame_l3(frame), inner = {};
	struct payload payload = ip_payload(frame, outer);
	struct vnet_headers headers;

	if (payload.protocol == UDP)
		inner = inside_vxlan(frame, payload.offset);
	else if (payload.protocol == GRE)
		inner = inside_gre(frame, payload.offset);
	if (inner.type != VNET_IPV4 && inner.type != VNET_IPV6)
		inner = outer;
	vnet_dissect_l3(frame, &headers, inner);
	vnet_rss(&headers, verdict);
}
