// SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0
/*
 * QUIC connections keep their queue: steering by connection ID (RFC 9000)
 * instead of addresses, so that a client may change its address, and by
 * rendezvous hashing, so that another queue takes over its fair share of
 * connections and all others stay where they are.
 *
 * For a server whose connection IDs have CID_LENGTH bytes: packets with a
 * short header do not say how long theirs is. The first flight of a client
 * goes by the ID the client made up, all that follows by the server's. Other
 * packets, and all if the hash type for UDP is off, go by RSS.
 */
#include <vnet_hash.h>

#ifndef QUIC_PORT
#define QUIC_PORT 443
#endif
#ifndef CID_LENGTH
#define CID_LENGTH 8 /* at least 8; that many are hashed */
#endif

enum {
	UDP_HEADER = 8,
	LONG_HEADER = 0x80, /* type and version, length of the ID, the ID; section 17.2 */
	LONG_FIXED = 6,
	SHORT_FIXED = 1, /* type, the ID; section 17.3 */
	CID_WORDS = 2,
};

/* Where UDP to a QUIC server carries its packet, 0 if it is anything else. */
static __always_inline __u32 quic_offset(const struct vnet_frame *frame, struct vnet_l3 l3,
					 const struct vnet_headers *headers)
{
	const __u8 *ip;

	if (headers->ports >> 16 != __builtin_bswap16(QUIC_PORT))
		return 0;
	if (headers->kind == VNET_REPORT_UDPV6)
		return l3.offset + 40 + UDP_HEADER;
	if (headers->kind != VNET_REPORT_UDPV4)
		return 0;
	ip = vnet_at(frame, l3.offset, 20);
	return ip ? l3.offset + (ip[0] & 15) * 4 + UDP_HEADER : 0;
}

/* The first bytes of the destination connection ID; whether there is one. */
static __always_inline int connection_id(const struct vnet_frame *frame, __u32 offset,
					 __u32 id[CID_WORDS])
{
	const __u8 *at = vnet_at(frame, offset, SHORT_FIXED + CID_LENGTH);

	if (!at)
		return 0;
	if (at[0] & LONG_HEADER) {
		if (at[5] < CID_LENGTH)
			return 0;
		offset += LONG_FIXED;
	} else {
		offset += SHORT_FIXED;
	}
	at = vnet_at(frame, offset, CID_LENGTH); /* anew: words have to start what is asked for */
	if (!at)
		return 0;
	id[0] = vnet_u32(at);
	id[1] = vnet_u32(at + 4);
	return 1;
}

/* A number that looks random, but is always the same for a hash and a queue. */
static __always_inline __u64 weight(__u32 hash, __u32 queue)
{
	__u64 x = (__u64)queue << 32 | hash;

	x = (x ^ x >> 33) * 0xff51afd7ed558ccdull;
	x = (x ^ x >> 33) * 0xc4ceb9fe1a85ec53ull;
	return x ^ x >> 33;
}

/*
 * The queue of the greatest weight. A queue that joins wins only where its
 * own is greater, and takes nothing from one of the others to give to a
 * third. The number of the queue rides in the lowest bits of its weight.
 *
 * Not static: the verifier looks at such a function once, and not at each of
 * its 256 rounds again for every way in which a packet may come here.
 */
__noinline __u32 choose(__u32 hash, __u32 queues)
{
	__u64 best = 0, next;

	VNET_KEEP_LOOP
	for (__u32 queue = 0; queue < VNET_QUEUES_MAX && queue < queues; queue++) {
		next = (weight(hash, queue) & ~(VNET_QUEUES_MAX - 1ull)) | queue;
		if (next > best)
			best = next;
	}
	return best & (VNET_QUEUES_MAX - 1);
}

/* By one configuration; whether it has a hash for such packets. */
static __always_inline int steer(const __u32 id[CID_WORDS], __u32 kind,
				 struct vnet_verdict *verdict)
{
	VNET_KEEP_LOOP
	for (int i = 0; i < 2; i++) {
		struct vnet_snapshot now = vnet_snapshot();
		__u32 report = now.config->rules[kind & 15] & VNET_RULE_REPORT;

		if (report != kind)
			return 0;
		verdict->reporting = now.config->reporting;
		verdict->hash_report = report;
		verdict->hash_value = vnet_snapshot_hash(&now, id, CID_WORDS);
		verdict->queue = choose(verdict->hash_value, now.config->queues);
		if (vnet_unchanged(&now))
			return 1;
	}
	return 0;
}

VNET_HASH_PROGRAM(frame, verdict)
{
	struct vnet_l3 l3 = vnet_frame_l3(frame);
	struct vnet_headers headers;
	__u32 id[CID_WORDS], offset;

	vnet_dissect_l3(frame, &headers, l3);
	offset = quic_offset(frame, l3, &headers);
	if (offset && connection_id(frame, offset, id) && steer(id, headers.kind, verdict))
		return;
	vnet_rss(&headers, verdict);
}
