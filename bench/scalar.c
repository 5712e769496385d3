/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/*
 * What bulk hashing is measured against: the scalar Toeplitz loop that packet
 * libraries have, and a loop that only copies and XORs the same bytes, which
 * no hash can beat by much. Tuples are rows of 12 or 36 bytes (IPv4, IPv6;
 * addresses and ports in network order) without gaps. Both return 0, or -1
 * for another length.
 */
#include <string.h>

#include "bench.h"

#define KEY_WORDS 10

static uint32_t big_endian(const uint8_t *at)
{
	uint32_t word;

	memcpy(&word, at, sizeof(word));
	return __builtin_bswap32(word);
}

/* For each set bit of the input, the 32 bits of the key that start there. */
static inline __attribute__((always_inline)) void
hash_rows(const uint32_t *key, const uint8_t *tuples, size_t count, size_t length,
	  uint32_t *hashes)
{
	for (size_t row = 0; row < count; row++, tuples += length) {
		uint32_t hash = 0;

		for (size_t i = 0; i < length / 4; i++) {
			uint64_t window = (uint64_t)key[i] << 32 | key[i + 1];

			/* Bit n of the word is 31 - n bits into its window. */
			for (uint32_t bits = big_endian(tuples + 4 * i); bits; bits &= bits - 1)
				hash ^= window >> (1 + __builtin_ctz(bits));
		}
		hashes[row] = hash;
	}
}

int scalar_hash(const uint8_t *key, const uint8_t *tuples, size_t count, size_t length,
		uint32_t *hashes)
{
	uint32_t words[KEY_WORDS];

	for (size_t i = 0; i < KEY_WORDS; i++)
		words[i] = big_endian(key + 4 * i);
	if (length == 12)
		hash_rows(words, tuples, count, 12, hashes);
	else if (length == 36)
		hash_rows(words, tuples, count, 36, hashes);
	else
		return -1;
	return 0;
}

static inline __attribute__((always_inline)) void
copy_rows(const uint8_t *tuples, size_t count, size_t length, uint8_t *copy, uint32_t *sums)
{
	for (size_t row = 0; row < count; row++, tuples += length, copy += length) {
		uint32_t sum = 0;

		memcpy(copy, tuples, length);
		for (size_t i = 0; i < length; i += 4) {
			uint32_t word;

			memcpy(&word, tuples + i, sizeof(word));
			sum ^= word;
		}
		sums[row] = sum;
	}
}

/* `copy` has room for all tuples; sums[n] is the XOR of the words of tuple n. */
int copy_xor(const uint8_t *tuples, size_t count, size_t length, uint8_t *copy, uint32_t *sums)
{
	if (length == 12)
		copy_rows(tuples, count, 12, copy, sums);
	else if (length == 36)
		copy_rows(tuples, count, 36, copy, sums);
	else
		return -1;
	return 0;
}
