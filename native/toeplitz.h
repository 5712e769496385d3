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

#define VNET_OFFSET_MAX 32767 /* of a load */

/*
 * What `count` words add that start with word `first` of the input. Byte by
 * byte from memory: to take a byte out of a word is an instruction more than to
 * load it. The two in assembler would be three.
 */
vnet_inline __u32 vnet_hash_part(const struct vnet_config *config, const __u32 *words, __u32 first,
				 __u32 count)
{
	const __u8 *bytes = (const __u8 *)words, *base = (const __u8 *)config;
	__u32 tables = (const __u8 *)config->toeplitz[4 * first] - base, hash = 0;

	if (tables + (4 * count - 1) * sizeof(config->toeplitz[0]) > VNET_OFFSET_MAX) {
		base += tables;
		tables = 0;
	}
	_Pragma("clang loop unroll(full)")
	for (__u32 i = 0; i < 4 * count; i++) {
		__u64 at = bytes[i];

		asm("%0 <<= 2\n\t%0 += %1" : "+r"(at) : "r"(base));
		hash ^= *(const __u32 *)(at + tables + i * sizeof(config->toeplitz[0]));
		vnet_settle(hash);
	}
	return hash;
}
#else
#define vnet_settle(x)

/* What word `index` of the input adds to the hash. */
vnet_inline __u32 vnet_hash_word(const struct vnet_config *config, __u32 index, __u32 word)
{
	const __u32(*table)[256] = config->toeplitz + 4 * index;

	return table[0][word & 255] ^ table[1][word >> 8 & 255] ^ table[2][word >> 16 & 255] ^
	       table[3][word >> 24];
}

/* What `count` words add that start with word `first` of the input. */
vnet_inline __u32 vnet_hash_part(const struct vnet_config *config, const __u32 *words, __u32 first,
				 __u32 count)
{
	__u32 hash = 0;

	for (__u32 i = 0; i < count; i++)
		hash ^= vnet_hash_word(config, first + i, words[i]);
	return hash;
}
#endif

/* What `count` words add that start the input. */
vnet_inline __u32 vnet_hash_words(const struct vnet_config *config, const __u32 *words,
				  __u32 count)
{
	return vnet_hash_part(config, words, 0, count);
}

/* What word `index` of the input adds to the hash, by the key, bit by bit. */
vnet_inline __u32 vnet_hash_bits_word(const __u8 key[VNET_KEY_LEN], __u32 index, __u32 word)
{
	__u64 window = (__u64)__builtin_bswap32(*(const __u32 *)(key + 4 * index)) << 32 |
		       __builtin_bswap32(*(const __u32 *)(key + 4 * index + 4));
	__u32 hash = 0;

	word = __builtin_bswap32(word);
	VNET_KEEP_LOOP
	for (__u32 bit = 0; bit < 32; bit++) {
		hash ^= (window >> 32) & -(word >> 31);
		window <<= 1;
		word <<= 1;
	}
	return hash;
}

/* What `count` words add that start the input, by the key. */
vnet_inline __u32 vnet_hash_bits(const __u8 key[VNET_KEY_LEN], const __u32 *words, __u32 count)
{
	__u32 hash = 0;

	VNET_KEEP_LOOP
	for (__u32 i = 0; i < count; i++)
		hash ^= vnet_hash_bits_word(key, i, words[i]);
	return hash;
}

/*
 * The hash over the fields that virtio 1.3, 5.1.6.4.3.2 to .4 name, by the
 * rule for the packet's kind. Fields that a kind does not set are not read.
 */
vnet_inline __u32 vnet_hash(const struct vnet_config *config, const struct vnet_headers *headers,
			    __u32 rule)
{
	__u32 hash;

	if (headers->kind <= VNET_REPORT_UDPV4) {
		hash = vnet_hash_words(config, headers->address, 2);
		if (vnet_likely(rule & VNET_RULE_PORTS))
			hash ^= vnet_hash_part(config, &headers->ports, 2, 1);
		return hash;
	}
	if (headers->kind >= VNET_REPORT_IPV6_EX && rule & VNET_RULE_FINAL)
		hash = vnet_hash_words(config, headers->final, 8);
	else
		hash = vnet_hash_words(config, headers->address, 8);
	if (vnet_likely(rule & VNET_RULE_PORTS))
		hash ^= vnet_hash_part(config, &headers->ports, 8, 1);
	return hash;
}

/* The same by the key, without tables. */
vnet_inline __u32 vnet_hash_by_key(const struct vnet_config *config,
				   const struct vnet_headers *headers, __u32 rule)
{
	__u32 count = headers->kind <= VNET_REPORT_UDPV4 ? 2 : 8, hash = 0;
	__u32 ports = rule & VNET_RULE_PORTS ? headers->ports : 0; /* which would add nothing */
	const __u32 *address = headers->address;

	if (headers->kind >= VNET_REPORT_IPV6_EX && rule & VNET_RULE_FINAL)
		address = headers->final;
	VNET_KEEP_LOOP
	for (__u32 i = 0; i < VNET_INPUT_WORDS && i <= count; i++)
		hash ^= vnet_hash_bits_word(config->key, i, i < count ? address[i] : ports);
	return hash;
}

#endif
