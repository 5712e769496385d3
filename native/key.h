/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0) OR Apache-2.0 */
/* What a key becomes before there is a packet. In user space; nothing here is fast. */
#ifndef VNETHASH_KEY_H
#define VNETHASH_KEY_H

#include "toeplitz.h"

/* The 32 bits of the key that start at `bit`, and zeros behind its end. */
vnet_inline __u32 vnet_key_window(const __u8 key[VNET_KEY_LEN], __u32 bit)
{
	__u64 window = 0;

	for (__u32 i = 0; i < 5; i++)
		window = window << 8 | (bit / 8 + i < VNET_KEY_LEN ? key[bit / 8 + i] : 0);
	return window >> (8 - bit % 8);
}

/* Rules and tables of a configuration, from its hash types and its key. */
vnet_inline void vnet_fill_tables(struct vnet_config *config)
{
	for (__u32 kind = 0; kind < VNET_REPORTS; kind++)
		config->rules[kind] = vnet_rule(config->hash_types, kind);
	for (__u32 i = 0; i < VNET_INPUT_LEN; i++) {
		__u32 *table = config->toeplitz[i];

		table[0] = 0;
		for (__u32 byte = 1; byte < 256; byte++) {
			__u32 lowest = __builtin_ctz(byte);

			table[byte] = table[byte & (byte - 1)] ^
				      vnet_key_window(config->key, 8 * i + 7 - lowest);
		}
	}
}

#endif
