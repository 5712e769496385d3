/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0) OR Apache-2.0 */
/*
 * Toeplitz by carry-less multiplication; included once for each size of vector.
 *
 * Take 8 bytes of the input as a polynomial over GF(2), first bit highest, and
 * the 95 bits of the key that meet them as one with the first bit lowest. The
 * coefficients of x^63 to x^94 of their product are what these bytes add to the
 * hash, its first bit lowest. With the key's polynomial times x they are bits 64
 * to 95 of the product with its low 64 bits, plus bits 0 to 31 of that with the
 * rest. Sums are taken before the bits are put in order.
 *
 *	VNET_NAME	of the function this defines
 *	VNET_ISA	what it needs, for __attribute__((target))
 *	VNET_VECTOR	the type of a vector, of VNET_LANES times 16 bytes
 *	VNET_OP(op)	the intrinsic for this size
 *	VNET_MULTIPLY	the same of clmulepi64
 *	VNET_JOIN(at)	the vector whose lane n is at(n), an __m128i
 *	VNET_SPREAD(x)	the vector whose lanes are all x
 *	VNET_STORE	to memory
 */
#ifndef VNETHASH_BULK_CLMUL_H
#define VNETHASH_BULK_CLMUL_H

#define VNET_CONCAT_(a, b) a##b
#define VNET_CONCAT(a, b) VNET_CONCAT_(a, b)

#endif

#define VNET_ROWS VNET_CONCAT(VNET_NAME, _rows)
#define VNET_LANES_OF VNET_CONCAT(VNET_NAME, _lanes)

/* 16 bytes of a row in each lane, of every fourth row, from byte `first` on of `words` words. */
static inline __attribute__((target(VNET_ISA), always_inline)) VNET_VECTOR
VNET_LANES_OF(const __u8 *rows, __u32 words, __u32 first)
{
#define VNET_AT(lane) vnet_clmul_load(rows + 16 * (lane) * words + first, 4 * words - first)
	return VNET_JOIN(VNET_AT);
#undef VNET_AT
}

static inline __attribute__((target(VNET_ISA), always_inline)) void
VNET_ROWS(const struct vnet_bulk *bulk, const __u8 *rows, __u32 words, __u64 count, __u32 *hashes)
{
	const VNET_VECTOR big_endian = VNET_SPREAD(_mm_set_epi64x(0x08090a0b0c0d0e0f, 0x0001020304050607));
	const VNET_VECTOR reverse_bytes = VNET_SPREAD(_mm_set_epi64x(0x0c0d0e0f08090a0b, 0x0405060700010203));
	const VNET_VECTOR nibble = VNET_SPREAD(_mm_set1_epi8(15));
	const VNET_VECTOR reversed = VNET_SPREAD(_mm_set_epi64x(0x0f070b030d050901, 0x0e060a020c040800));
	const VNET_VECTOR reversed_high = VNET_SPREAD(_mm_set_epi64x(0xf070b030d0509010, 0xe060a020c0408000));

	for (__u64 row = 0; row < count; row += 4 * VNET_LANES, rows += 16 * VNET_LANES * words) {
		VNET_VECTOR sums[4], first, second, low;

		for (__u32 i = 0; i < 4; i++) {
			VNET_VECTOR sum = {}, rest = {};

			for (__u32 word = 0; word < words; word += 4) {
				__u32 half = word / 2;
				VNET_VECTOR keys = VNET_SPREAD(_mm_loadu_si128((void *)(bulk->low + half)));
				VNET_VECTOR input = VNET_LANES_OF(rows + 4 * i * words, words, 4 * word);

				input = VNET_OP(shuffle_epi8)(input, big_endian);
				sum ^= VNET_MULTIPLY(input, keys, 0x00);
				if (word + 2 < words)
					sum ^= VNET_MULTIPLY(input, keys, 0x11);
				/* What ends after 4 bytes has no bits that meet the rest. */
				keys = VNET_SPREAD(_mm_loadu_si128((void *)(bulk->high + half)));
				if (word + 1 < words)
					rest ^= VNET_MULTIPLY(input, keys, 0x00);
				if (word + 3 < words)
					rest ^= VNET_MULTIPLY(input, keys, 0x11);
			}
			sums[i] = sum ^ VNET_OP(shuffle_epi32)(rest, 0x4e);
		}
		/* The third word of each lane; lane n of sums[i] was row 4n + i. */
		first = VNET_OP(unpackhi_epi32)(sums[0], sums[1]);
		second = VNET_OP(unpackhi_epi32)(sums[2], sums[3]);
		low = VNET_OP(unpacklo_epi64)(first, second);
		low = VNET_OP(shuffle_epi8)(low, reverse_bytes);
		first = VNET_OP(shuffle_epi8)(reversed_high, low & nibble);
		second = VNET_OP(shuffle_epi8)(reversed, VNET_OP(srli_epi16)(low, 4) & nibble);
		VNET_STORE((void *)(hashes + row), first | second);
	}
}

static inline __attribute__((target(VNET_ISA))) int
VNET_NAME(const struct vnet_bulk *bulk, const __u8 *rows, __u32 width, __u64 count, __u32 *hashes)
{
	switch (width) {
	case 8:
		VNET_ROWS(bulk, rows, 2, count, hashes);
		return 1;
	case 12:
		VNET_ROWS(bulk, rows, 3, count, hashes);
		return 1;
	case 32:
		VNET_ROWS(bulk, rows, 8, count, hashes);
		return 1;
	case 36:
		VNET_ROWS(bulk, rows, 9, count, hashes);
		return 1;
	}
	return 0;
}

#undef VNET_ROWS
#undef VNET_LANES_OF
#undef VNET_NAME
#undef VNET_ISA
#undef VNET_VECTOR
#undef VNET_LANES
#undef VNET_OP
#undef VNET_MULTIPLY
#undef VNET_JOIN
#undef VNET_SPREAD
#undef VNET_STORE
