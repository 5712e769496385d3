/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0) OR Apache-2.0 */
/*
 * From a frame to the headers RSS looks at. One dissector, compiled to BPF
 * and into the native core; tunnel.h has what looks into tunnels.
 *
 * The contract: it never reads outside the frame, never fails, and says only
 * what it saw. What does not lie wholly in the frame, or lies behind the end
 * its IP header declares, is not there: a packet cut short loses its ports,
 * then its addresses. docs/conformance.md has the rules.
 */
#ifndef VNETHASH_DISSECT_H
#define VNETHASH_DISSECT_H

#include "frame.h"

enum vnet_bound {
	VNET_EXTENSIONS_MAX = 8, /* IPv6 extension headers walked */
	VNET_OPTIONS_MAX = 8,    /* options read of a destination options header */
};

enum vnet_protocol {
	VNET_IPV4_IN_IP = 4,
	VNET_TCP = 6,
	VNET_UDP = 17,
	VNET_IPV6_IN_IP = 41,
	VNET_GRE = 47,
	VNET_NONE = 255, /* reserved by IANA */
};

/*
 * What an IP packet carries, if it is not TCP. Nobody looks into TCP, and most
 * of what passes is that. The first field and the last are not neighbours: they
 * would be stored as one, and the verifier of Linux 6.1 no longer know them apart.
 */
struct vnet_payload {
	__u32 protocol;   /* VNET_NONE: TCP, a fragment, cut short; where is not set then */
	__u32 offset;
	__u32 end;
	__u32 looked_for; /* enum vnet_tunnel; VNET_TUNNEL_ANY: nobody looked */
};

/* What the dissector saw. Addresses and ports as they lie in the packet. */
struct vnet_headers {
	__u32 kind;  /* enum vnet_report, the most specific one; NONE: not IP */
	__u32 ports; /* 0 unless the kind is TCP.. or UDP.. */
	__u32 address[8] vnet_aligned; /* source and destination, 2 words or 8 */
	__u32 final[8] vnet_aligned; /* the same for a mobile node; set for the kinds .._EX */
	struct vnet_payload payload;
};

/* Kinds come in threes: the addresses', TCP's, UDP's. */
enum vnet_l4 {
	VNET_L4_NONE = 0,
	VNET_L4_TCP = 1,
	VNET_L4_UDP = 2,
};

vnet_inline void vnet_copy_address(__u32 to[4], const __u8 *from)
{
	vnet_copy_pair(to, from);
	vnet_copy_pair(to + 2, from + 8);
}

/* Where the packet ends: where its IP header says, unless that lies (0: jumbo). */
vnet_inline __u32 vnet_packet_end(const struct vnet_frame *frame, __u32 start, __u32 declared)
{
	__u32 room = frame->length - start;

	return start + (declared - 1 < room ? declared : room); /* 0 - 1 is more than any room */
}

/* Which transport header lies whole at `offset`, enum vnet_l4. */
vnet_inline __u32 vnet_l4_at(__u8 protocol, __u32 offset, __u32 end)
{
	if (protocol == VNET_TCP && offset + 20 <= end)
		return VNET_L4_TCP;
	if (protocol == VNET_UDP && offset + 8 <= end)
		return VNET_L4_UDP;
	return VNET_L4_NONE;
}

vnet_inline void vnet_note_payload(struct vnet_headers *headers, __u8 protocol, __u32 offset,
				   __u32 end)
{
	if (protocol == VNET_TCP)
		return;
	headers->payload = (struct vnet_payload){
		.protocol = protocol,
		.offset = offset,
		.end = end,
		.looked_for = VNET_TUNNEL_ANY,
	};
}

vnet_inline void vnet_dissect_l4(const struct vnet_frame *frame, struct vnet_headers *headers,
				 __u8 protocol, __u32 offset, __u32 end)
{
	__u32 l4 = vnet_l4_at(protocol, offset, end);
	const __u8 *ports;

	vnet_note_payload(headers, protocol, offset, end);
	if (l4) {
		ports = vnet_at(frame, offset, 4);
		if (ports) {
			headers->ports = vnet_u32(ports);
			headers->kind += l4;
		}
	}
}

/* RFC 791 */
vnet_inline void vnet_dissect_ipv4(const struct vnet_frame *frame, struct vnet_headers *headers,
				   __u32 offset)
{
	const __u8 *ip = vnet_at(frame, offset, 20);
	__u32 header_length = 20;

	if (!ip)
		return;
	if (ip[0] != 0x45) { /* anything but the usual header */
		header_length = (ip[0] & 15) * 4;
		if (ip[0] >> 4 != 4 || header_length < 20)
			return;
	}
	headers->kind = VNET_REPORT_IPV4;
	headers->address[0] = vnet_u32(ip + 12);
	headers->address[1] = vnet_u32(ip + 16);
	if (vnet_be16(ip + 6) & 0x3fff) /* more fragments, or not the first */
		return;
	vnet_dissect_l4(frame, headers, ip[9], offset + header_length,
			vnet_packet_end(frame, offset, vnet_be16(ip + 2)));
}

/* The home address option, RFC 6275 section 6.3, of a destination options header. */
vnet_inline void vnet_find_home(const struct vnet_frame *frame, struct vnet_headers *headers,
				__u32 offset, __u32 end)
{
	const __u8 *at;

	VNET_KEEP_LOOP
	for (int i = 0; i < VNET_OPTIONS_MAX && offset < end; i++) {
		at = vnet_copy_at(frame, offset, 1);
		if (!at)
			return;
		if (at[0] == 0) { /* Pad1 has no length */
			offset++;
			continue;
		}
		at = vnet_copy_at(frame, offset, 2);
		if (!at || offset + 2 + at[1] > end)
			return;
		if (at[0] == 201 && at[1] == 16) {
			at = vnet_copy_at(frame, offset + 2, 16);
			if (at)
				vnet_copy_address(headers->final, at);
			return;
		}
		offset += 2 + at[1];
	}
}

enum vnet_next_header {
	VNET_HOP_BY_HOP = 0,
	VNET_ROUTING = 43,
	VNET_FRAGMENT = 44,
	VNET_AUTHENTICATION = 51,
	VNET_DESTINATION_OPTIONS = 60,
	VNET_MOBILITY = 135,
	VNET_HIP = 139,
	VNET_SHIM6 = 140,
};

/* RFC 8200 section 4 and the registry it founded. */
vnet_inline int vnet_is_extension(__u8 next)
{
	return next == VNET_HOP_BY_HOP || next == VNET_ROUTING || next == VNET_FRAGMENT ||
	       next == VNET_AUTHENTICATION || next == VNET_DESTINATION_OPTIONS ||
	       next == VNET_MOBILITY || next == VNET_HIP || next == VNET_SHIM6;
}

/*
 * Type 2 routing header: RFC 6275 section 6.4. Of several, which no sender
 * may send, the last one counts.
 */
vnet_inline void vnet_walk_extensions(const struct vnet_frame *frame, struct vnet_headers *headers,
				      __u8 next, __u32 offset, __u32 end)
{
	const __u8 *at;
	__u32 length, l4;
	__u8 this;

	VNET_KEEP_LOOP
	for (int i = 0; i < VNET_EXTENSIONS_MAX && vnet_is_extension(next); i++) {
		if (offset + 8 > end)
			return;
		at = vnet_copy_at(frame, offset, 8);
		if (!at)
			return;
		this = next;
		next = at[0];
		if (this == VNET_FRAGMENT) {
			if (vnet_be16(at + 2) & 0xfff9) /* not the first, or more follow */
				return;
			offset += 8;
			continue;
		}
		length = this == VNET_AUTHENTICATION ? (at[1] + 2) * 4 : (at[1] + 1) * 8;
		if (offset + length > end)
			return;
		if (this == VNET_ROUTING && at[2] == 2 && length == 24) {
			at = vnet_copy_at(frame, offset + 8, 16);
			if (!at)
				return;
			vnet_copy_address(headers->final + 4, at);
		}
		if (this == VNET_DESTINATION_OPTIONS)
			vnet_find_home(frame, headers, offset + 2, offset + length);
		offset += length;
	}
	vnet_note_payload(headers, next, offset, end);
	l4 = vnet_l4_at(next, offset, end);
	if (l4) {
		at = vnet_copy_at(frame, offset, 4);
		if (at) {
			headers->ports = vnet_u32(at);
			headers->kind += l4;
		}
	}
}

/* RFC 8200 */
vnet_inline void vnet_dissect_ipv6(const struct vnet_frame *frame, struct vnet_headers *headers,
				   __u32 offset)
{
	const __u8 *ip = vnet_at(frame, offset, 40);
	__u32 end;

	if (!ip || ip[0] >> 4 != 6)
		return;
	headers->kind = VNET_REPORT_IPV6;
	vnet_copy_address(headers->address, ip + 8);
	vnet_copy_address(headers->address + 4, ip + 24);
	end = vnet_packet_end(frame, offset + 40, vnet_be16(ip + 4));
	if (ip[6] == VNET_TCP || !vnet_is_extension(ip[6])) {
		vnet_dissect_l4(frame, headers, ip[6], offset + 40, end);
		return;
	}
	headers->kind = VNET_REPORT_IPV6_EX;
	vnet_forget(); /* linked copies would double the verifier's work */
	vnet_copy_address(headers->final, ip + 8);
	vnet_copy_address(headers->final + 4, ip + 24);
	vnet_walk_extensions(frame, headers, ip[6], offset + 40, end);
}

enum vnet_ethertype {
	VNET_IPV4 = 0x0800,
	VNET_TAG = 0x8100,         /* 802.1Q */
	VNET_IPV6 = 0x86dd,
	VNET_SERVICE_TAG = 0x88a8, /* 802.1ad */
};

vnet_inline int vnet_is_tag(__u16 type)
{
	return type == VNET_TAG || type == VNET_SERVICE_TAG;
}

/* Where a packet's network header is, and what: an EtherType, 0 if there is none. */
struct vnet_l3 {
	__u32 offset;
	__u16 type;
};

/* A type below this is a length (IEEE 802.3, 3.2.6), and LLC follows. */
#define VNET_TYPE_MIN 0x600

/* LLC and SNAP with an EtherType, RFC 1042. */
vnet_inline struct vnet_l3 vnet_find_snap(const struct vnet_frame *frame, __u32 offset)
{
	const __u8 *at = vnet_at(frame, offset, 8);

	if (!at || at[0] != 0xaa || at[1] != 0xaa || at[2] != 3 || at[3] | at[4] | at[5])
		return (struct vnet_l3){};
	return (struct vnet_l3){ .offset = offset + 8, .type = vnet_be16(at + 6) };
}

/* Ethernet at `offset` with at most two VLAN tags. */
vnet_inline struct vnet_l3 vnet_find_l3(const struct vnet_frame *frame, __u32 offset)
{
	struct vnet_l3 l3 = {};
	const __u8 *at = vnet_at(frame, offset, 14);

	if (!at)
		return l3;
	l3.type = vnet_be16(at + 12);
	l3.offset = offset + 14;
	if (l3.type == VNET_IPV4 || l3.type == VNET_IPV6) /* most are: ask for these first */
		return l3;
	if (vnet_is_tag(l3.type)) {
		at = vnet_at(frame, offset + 14, 4);
		if (!at)
			return (struct vnet_l3){};
		l3.type = vnet_be16(at + 2);
		l3.offset = offset + 18;
		if (vnet_is_tag(l3.type) && !vnet_has_tag_beside(frame)) {
			at = vnet_at(frame, offset + 18, 4);
			if (!at)
				return (struct vnet_l3){};
			l3.type = vnet_be16(at + 2);
			l3.offset = offset + 22;
		}
	}
	if (l3.type < VNET_TYPE_MIN)
		return vnet_find_snap(frame, l3.offset);
	return l3;
}

/* A packet from its network header on. */
vnet_inline void vnet_dissect_l3(const struct vnet_frame *frame, struct vnet_headers *headers,
				 struct vnet_l3 l3)
{
	headers->kind = VNET_REPORT_NONE;
	headers->ports = 0; /* the verifier does not know when they are asked for */
	headers->payload.protocol = VNET_NONE;
	headers->payload.looked_for = VNET_TUNNEL_ANY;
#if defined(__bpf__) && __clang_major__ < 19
	/* Older ones store what was never set, from a register that the verifier knows was not. */
	headers->payload.offset = 0;
	headers->payload.end = 0;
#endif
	if (l3.type == VNET_IPV4)
		vnet_dissect_ipv4(frame, headers, l3.offset);
	else if (l3.type == VNET_IPV6)
		vnet_dissect_ipv6(frame, headers, l3.offset);
}

/* The network header of the frame; without Ethernet headers (IFF_TUN) at its start. */
vnet_inline struct vnet_l3 vnet_frame_l3(const struct vnet_frame *frame)
{
	const __u8 *at;

	if (!frame->is_l3)
		return vnet_find_l3(frame, 0);
	at = vnet_at(frame, 0, 1);
	if (!at)
		return (struct vnet_l3){};
	return (struct vnet_l3){ .type = at[0] >> 4 == 4 ? VNET_IPV4 : VNET_IPV6 };
}

#endif
