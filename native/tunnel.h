/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0) OR Apache-2.0 */
/*
 * Inner header hash, virtio 1.3, 5.1.6.4.4: a packet whose outer headers are
 * those of a tunnel to look into is judged by its inner headers alone, any
 * other one by its outer ones. One level is looked into.
 *
 * Whether it is one, the outer headers say, up to the tunnel's own: a tunnel
 * that carries no IP packet is a tunnel all the same. Its contents end where
 * the outer packet does.
 */
#ifndef VNETHASH_TUNNEL_H
#define VNETHASH_TUNNEL_H

#include "dissect.h"

/* What is inside: where, which EtherType, and of which encapsulations this is one. */
struct vnet_inner {
	__u32 offset;
	__u16 type;    /* 0: nothing we know */
	__u16 tunnels; /* enum vnet_tunnel; a packet may be of several */
};

#define VNET_NO_TUNNEL ((struct vnet_inner){})

enum vnet_gre {
	VNET_GRE_CHECKSUM = 0x8000,
	VNET_GRE_KEY = 0x2000,
	VNET_GRE_SEQUENCE = 0x1000,
	/* Routing and what RFC 2784, 2.3 has a receiver refuse; another version than 0. */
	VNET_GRE_REFUSED = 0x4c07,
	VNET_TRANSPARENT_ETHERNET = 0x6558,
};

/* GRE at `offset`: RFC 2784 and 2890. The types of the delivery by IP are added. */
vnet_inline struct vnet_inner vnet_find_gre(const struct vnet_frame *frame, __u32 offset,
					    int is_over_ipv6)
{
	const __u8 *at = vnet_at(frame, offset, 4);
	struct vnet_inner inner;
	__u16 flags;

	if (!at)
		return VNET_NO_TUNNEL;
	flags = vnet_be16(at);
	if (flags & VNET_GRE_REFUSED)
		return VNET_NO_TUNNEL;
	inner.type = vnet_be16(at + 2);
	inner.offset = offset + 4;
	inner.offset += flags & VNET_GRE_CHECKSUM ? 4 : 0;
	inner.offset += flags & VNET_GRE_KEY ? 4 : 0;
	inner.offset += flags & VNET_GRE_SEQUENCE ? 4 : 0;
	inner.tunnels = flags & (VNET_GRE_KEY | VNET_GRE_SEQUENCE) ? VNET_TUNNEL_GRE_2890 :
								     VNET_TUNNEL_GRE_2784;
	/* RFC 7676: IPv6 as delivery, for which the other two have no rules, or as payload. */
	if (is_over_ipv6)
		inner.tunnels = VNET_TUNNEL_GRE_7676;
	else if (inner.type == VNET_IPV6)
		inner.tunnels |= VNET_TUNNEL_GRE_7676;
	/* RFC 7637, 3.2: a key, no checksum, no sequence number. */
	if (inner.type == VNET_TRANSPARENT_ETHERNET &&
	    (flags & (VNET_GRE_CHECKSUM | VNET_GRE_KEY | VNET_GRE_SEQUENCE)) == VNET_GRE_KEY)
		inner.tunnels |= VNET_TUNNEL_NVGRE;
	inner.tunnels &= vnet_reaches(frame, inner.offset);
	return inner;
}

/* Destination ports that IANA has registered. */
enum vnet_tunnel_port {
	VNET_PORT_GRE = 4754,       /* RFC 8086 */
	VNET_PORT_VXLAN = 4789,     /* RFC 7348 */
	VNET_PORT_VXLAN_GPE = 4790, /* draft-ietf-nvo3-vxlan-gpe */
	VNET_PORT_GENEVE = 6081,    /* RFC 8926 */
};

enum vnet_vxlan {
	VNET_VXLAN_INSTANCE = 0x08, /* I: there is a network identifier */
	VNET_GPE_VERSION = 0x30,
	VNET_GPE_PROTOCOL = 0x04,   /* P: the payload has a type; without, it is Ethernet */
	VNET_GPE_OAM = 0x01,        /* O: no packet of the network inside */
	VNET_GENEVE_VERSION = 0xc0,
	VNET_GENEVE_OPTIONS = 0x3f, /* their length, in words */
	VNET_GENEVE_CONTROL = 0x80, /* O */
};

vnet_inline __u16 vnet_gpe_type(const __u8 *at)
{
	if (!(at[0] & VNET_GPE_PROTOCOL))
		return VNET_TRANSPARENT_ETHERNET;
	switch (at[3]) {
	case 1:
		return VNET_IPV4;
	case 2:
		return VNET_IPV6;
	case 3:
		return VNET_TRANSPARENT_ETHERNET;
	}
	return 0;
}

vnet_inline __u16 vnet_destination_port(const struct vnet_headers *headers)
{
	return __builtin_bswap16(headers->ports >> 16);
}

vnet_inline int vnet_is_tunnel_port(__u16 port)
{
	return port == VNET_PORT_GRE || port == VNET_PORT_VXLAN || port == VNET_PORT_VXLAN_GPE ||
	       port == VNET_PORT_GENEVE;
}

/* Behind the UDP header at `offset`. VXLAN, VXLAN-GPE and Geneve have 8 bytes. */
vnet_inline struct vnet_inner vnet_find_in_udp(const struct vnet_frame *frame, __u32 offset,
					       __u16 port)
{
	struct vnet_inner inner = { .offset = offset + 16 };
	const __u8 *at;

	if (port == VNET_PORT_GRE) {
		inner = vnet_find_gre(frame, offset + 8, 0);
		inner.tunnels = inner.tunnels ? VNET_TUNNEL_GRE_UDP : 0;
		return inner;
	}
	at = vnet_at(frame, offset + 8, 8);
	if (!at)
		return VNET_NO_TUNNEL;
	if (port == VNET_PORT_VXLAN) {
		inner.type = VNET_TRANSPARENT_ETHERNET;
		if (at[0] & VNET_VXLAN_INSTANCE)
			inner.tunnels = VNET_TUNNEL_VXLAN;
	} else if (port == VNET_PORT_VXLAN_GPE) {
		inner.type = vnet_gpe_type(at);
		if (!(at[0] & (VNET_GPE_VERSION | VNET_GPE_OAM)))
			inner.tunnels = VNET_TUNNEL_VXLAN_GPE;
	} else if (port == VNET_PORT_GENEVE) {
		inner.type = vnet_be16(at + 2);
		inner.offset += (at[0] & VNET_GENEVE_OPTIONS) * 4;
		if (!(at[0] & VNET_GENEVE_VERSION) && !(at[1] & VNET_GENEVE_CONTROL))
			inner.tunnels = VNET_TUNNEL_GENEVE & vnet_reaches(frame, inner.offset);
	}
	return inner;
}

vnet_inline struct vnet_inner vnet_find_inner(const struct vnet_frame *frame,
					      const struct vnet_headers *headers)
{
	__u32 offset = headers->payload.offset;

	switch (headers->payload.protocol) {
	case VNET_IPV4_IN_IP: /* RFC 2003, and RFC 2473 over IPv6 */
		return (struct vnet_inner){ offset, VNET_IPV4, VNET_TUNNEL_IPIP };
	case VNET_IPV6_IN_IP: /* RFC 4213, and RFC 2473 over IPv6 */
		return (struct vnet_inner){ offset, VNET_IPV6, VNET_TUNNEL_IPIP };
	case VNET_GRE:
		return vnet_find_gre(frame, offset, headers->kind >= VNET_REPORT_IPV6);
	case VNET_UDP:
		return vnet_find_in_udp(frame, offset, vnet_destination_port(headers));
	}
	return VNET_NO_TUNNEL;
}

/*
 * Put the inner headers in the place of the outer ones, if what `frame`, which
 * ends with the outer packet, carries is one of the tunnels to look for.
 */
vnet_inline void vnet_dissect_inner(const struct vnet_frame *frame, struct vnet_headers *headers,
				   __u32 looked_for)
{
	struct vnet_inner inner = vnet_find_inner(frame, headers);
	struct vnet_l3 l3 = { inner.offset, inner.type };

	if (!(inner.tunnels & looked_for))
		return;
	if (l3.type == VNET_TRANSPARENT_ETHERNET)
		l3 = vnet_find_l3(frame, l3.offset);
	vnet_dissect_l3(frame, headers, l3);
	headers->payload = (struct vnet_payload){ .looked_for = looked_for };
}

vnet_inline int vnet_may_be_tunnel(const struct vnet_headers *headers)
{
	switch (headers->payload.protocol) {
	case VNET_UDP:
		return vnet_is_tunnel_port(vnet_destination_port(headers));
	case VNET_GRE:
	case VNET_IPV4_IN_IP:
	case VNET_IPV6_IN_IP:
		return 1;
	}
	return 0;
}

/* Whether the headers would be the same if `tunnels` were looked for. */
vnet_inline int vnet_hold_for(const struct vnet_headers *headers, __u32 tunnels)
{
	const struct vnet_payload *payload = &headers->payload;

	return payload->looked_for == VNET_TUNNEL_ANY || payload->looked_for == tunnels;
}

/* The headers RSS looks at: of the frame, or of what a tunnel carries. */
vnet_inline void vnet_dissect(const struct vnet_frame *frame, struct vnet_headers *headers)
{
	__u32 looked_for;

	vnet_dissect_l3(frame, headers, vnet_frame_l3(frame));
	vnet_forget(); /* or each way here would carry along what it knows of the payload */
	if (headers->payload.protocol == VNET_NONE)
		return;
	looked_for = vnet_tunnels(frame);
	headers->payload.looked_for = looked_for;
	if (looked_for && vnet_may_be_tunnel(headers)) {
		struct vnet_frame outer = vnet_cut(frame, headers->payload.end);

		vnet_dissect_inner(&outer, headers, looked_for);
	}
}

#endif
