// SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0
/*
 * RSS by the inner headers of a tunnel: VXLAN (RFC 7348) and GRE (RFC 2784,
 * 2890), over IPv4 or IPv6. All flows of one tunnel have the same outer
 * addresses, and would share a queue.
 *
 * What is no such tunnel, or carries no IP, is hashed by its outer headers:
 * the inner header hash of the specification, which vnet_dissect() has, leaves
 * packets of a tunnel without IP unhashed. One level is unwrapped.
 */
#include <vnet_hash.h>

#ifndef VXLAN_PORT
#define VXLAN_PORT 4789
#endif

enum {
	VXLAN_HAS_ID = 0x08, /* the I flag: without it this is something else */
	TRANSPARENT_ETHERNET = 0x6558,
	GRE_CHECKSUM = 0x8000,
	GRE_KEY = 0x2000,
	GRE_SEQUENCE = 0x1000,
	GRE_UNKNOWN = 0x4fff, /* routing, reserved bits, and any version but 0 */
};

static __always_inline struct vnet_l3 inside_vxlan(const struct vnet_frame *outer, __u32 udp)
{
	const __u8 *at = vnet_at(outer, udp, 16); /* UDP and VXLAN */

	if (!at || vnet_be16(at + 2) != VXLAN_PORT || !(at[8] & VXLAN_HAS_ID))
		return (struct vnet_l3){};
	return vnet_find_l3(outer, udp + 16);
}

static __always_inline struct vnet_l3 inside_gre(const struct vnet_frame *outer, __u32 gre)
{
	const __u8 *at = vnet_at(outer, gre, 4);
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
		return vnet_find_l3(outer, gre);
	return (struct vnet_l3){ .offset = gre, .type = type };
}

VNET_HASH_PROGRAM(frame, verdict)
{
	struct vnet_headers headers;
	struct vnet_l3 inner = {};
	struct vnet_frame outer;

	vnet_dissect_l3(frame, &headers, vnet_frame_l3(frame));
	if (headers.payload.protocol == VNET_UDP || headers.payload.protocol == VNET_GRE) {
		outer = vnet_cut(frame, headers.payload.end); /* what is inside ends with it */
		if (headers.payload.protocol == VNET_UDP)
			inner = inside_vxlan(&outer, headers.payload.offset);
		else
			inner = inside_gre(&outer, headers.payload.offset);
		if (inner.type == VNET_IPV4 || inner.type == VNET_IPV6)
			vnet_dissect_l3(&outer, &headers, inner);
	}
	vnet_rss(&headers, verdict);
}
