/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0) OR Apache-2.0 */
/*
 * From headers and a configuration to report type and hash value.
 *
 * Toeplitz is linear over XOR, so a table that says what each byte adds at
 * each offset replaces the loop over bits: one load a byte.
 */
#ifndef VNETHASH_TOEPLITZ_H
#define VNETHASH_TOEPLITZ_H

#include "tunnel.h"

/*
 * The report type of a packet, virtio 1.3, 5.1.6.4.3.2 to .4: the transport's
 * if enabled, else the addresses'; for a packet with IPv6 extension headers
 * first among the _EX types, then as if it had none.
 */
vnet_inline __u32 vnet_report_type(__u32 hash_types, __u32 kind)
{
	__u32 addresses = kind - (kind - 1) % 3; /* the first of its three */

	for (;;) {
		if (kind == VNET_REPORT_NONE || hash_types >> (kind - 1) & 1)
			return kind;
		if (hash_types >> (addresses - 1) & 1)
			return addresses;
		if (addresses != VNET_REPORT_IPV6_EX)
			return VNET_REPORT_NONE;
		kind -= 3;
		addresses = VNET_REPORT_IPV6;
	}
}

/* enum vnet_rule for a kind of packet. */
vnet_inline __u8 vnet_rule(__u32 hash_types, __u32 kind)
{
	__u32 report = vnet_report_type(hash_types, kind), rule = report;

	if (report && (report - 1) % 3)
		rule |= VNET_RULE_PORTS;
	if (report >= VNET_REPORT_IPV6_EX)
		rule |= VNET_RULE_FINAL;
	return rule;
}

#ifdef __bpf__
/*
 * Keeps a value in one register from here on: left alone, clang takes the sum
 * apart over all registers of a BPF program, and the rest on the stack.
 */
#define vnet_settle(x) asm volatile("" : "+r"(x))

/*
 * The entry for the byte of `word` that starts at bit `shift`. BPF does not
 * scale an index: an offset in bytes takes one instruction less.
 */
vnet_inline __u32 vnet_hash_byte(const __u32 table[256], __u32 word, int shift)
{
	__u32 offset = (shift ? word >> (shift - 2) : word << 2) & 0x3fc;

	return *(const __u32 *)((const __u8 *)table + offset);
}
#else
#define vnet_settle(x)

vnet_inline __u32 vnet_hash_byte(const __u32 table[256], __u32 word, int shift)
{
	return table[word >> shift & 255];
}
#endif

/* What word `index` of the input adds to the hash. */
vnet_inline __u32 vnet_hash_word(const struct vnet_config *config, __u32 index, __u32 word)
{
	const __u32(*table)[256] = config->toeplitz + 4 * index;
	__u32 hash = vnet_hash_byte(table[0], word, 0) ^ vnet_hash_byte(table[1], word, 8) ^
		     vnet_hash_byte(table[2], word, 16) ^ vnet_hash_byte(table[3], word, 24);

	vnet_settle(hash);
	return hash;
}

/* What `count` words add that start the input. */
vnet_inline __u32 vnet_hash_words(const struct vnet_config *config, const __u32 *words,
				  __u32 count)
{
	__u32 hash = 0;

	for (__u32 i = 0; i < count; i++)
		hash ^= vnet_hash_word(config, i, words[i]);
	return hash;
}

/*
 * The hash over the fields that virtio 1.3, 5.1.6.4.3.2 to .4 name, by the
 * rule for the packet's kind. Fields that a kind does not set are not read.
 */
vnet_inline __u32 vnet_hash(const struct vnet_config *config, const struct vnet_headers *headers,
			    __u32 rule)
{
	const __u32 *address = headers->address;
	__u32 hash;

	if (headers->kind <= VNET_REPORT_UDPV4) {
		hash = vnet_hash_words(config, address, 2);
		if (rule & VNET_RULE_PORTS)
			hash ^= vnet_hash_word(config, 2, headers->ports);
		return hash;
	}
	if (headers->kind >= VNET_REPORT_IPV6_EX && rule & VNET_RULE_FINAL)
		address = headers->final;
	vnet_settle(address); /* one pointer, not eight */
	hash = vnet_hash_words(config, address, 8);
	if (rule & VNET_RULE_PORTS)
		hash ^= vnet_hash_word(config, 8, headers->ports);
	return hash;
}

#endif
