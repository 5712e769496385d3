/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0) OR Apache-2.0 */
/* Toeplitz in bulk on x86-64: carry-less multiplication, and bit matrices (GFNI). */
#ifndef VNETHASH_BULK_X86_H
#define VNETHASH_BULK_X86_H

#include <immintrin.h>

/* `size` bytes (4, 8, 12; or 16 of more), and zeros. */
static inline __attribute__((target("sse4.1"), always_inline)) __m128i
vnet_clmul_load(const __u8 *at, __u32 size)
{
	if (size >= 16)
		return _mm_loadu_si128((const void *)at);
	if (size == 4)
		return _mm_cvtsi32_si128(vnet_u32(at));
	if (size == 8)
		return _mm_loadl_epi64((const void *)at);
	return _mm_insert_epi32(_mm_loadl_epi64((const void *)at), vnet_u32(at + 8), 2);
}

#define VNET_NAME vnet_bulk_pclmul
#define VNET_ISA "pclmul,ssse3,sse4.1"
#define VNET_VECTOR __m128i
#define VNET_LANES 1
#define VNET_OP(op) _mm_##op
#define VNET_MULTIPLY _mm_clmulepi64_si128
#define VNET_SPREAD(x) (x)
#define VNET_STORE _mm_storeu_si128
#define VNET_JOIN(at) at(0)
#include "bulk_clmul.h"

#define VNET_NAME vnet_bulk_vpclmul_256
#define VNET_ISA "vpclmulqdq,avx2"
#define VNET_VECTOR __m256i
#define VNET_LANES 2
#define VNET_OP(op) _mm256_##op
#define VNET_MULTIPLY _mm256_clmulepi64_epi128
#define VNET_SPREAD _mm256_broadcastsi128_si256
#define VNET_STORE _mm256_storeu_si256
#define VNET_JOIN(at) _mm256_inserti128_si256(_mm256_castsi128_si256(at(0)), at(1), 1)
#include "bulk_clmul.h"

#define VNET_NAME vnet_bulk_vpclmul_512
#define VNET_ISA "vpclmulqdq,avx512f,avx512bw"
#define VNET_VECTOR __m512i
#define VNET_LANES 4
#define VNET_OP(op) _mm512_##op
#define VNET_MULTIPLY _mm512_clmulepi64_epi128
#define VNET_SPREAD _mm512_broadcast_i32x4
#define VNET_STORE _mm512_storeu_si512
#define VNET_JOIN(at)                                                                      \
	_mm512_inserti32x4(                                                                \
		_mm512_inserti32x4(                                                        \
			_mm512_inserti32x4(_mm512_castsi128_si512(at(0)), at(1), 1),       \
			at(2), 2),                                                         \
		at(3), 3)
#include "bulk_clmul.h"

/*
 * GFNI multiplies each byte by a matrix of 8 by 8 bits, eight bytes by the same
 * one. What input byte i adds to hash byte j depends on i + j alone: the key
 * bits it meets start at byte i + j. So for 16 rows at once, a word of each in a
 * vector: the four input bytes that lie i + j = s apart from the four hash bytes
 * are a word of the input that ends with byte s; four hash bytes in one
 * multiplication, in their order, by matrix s.
 */
#define VNET_GFNI __attribute__((target("gfni,avx512f,avx512bw,avx512vbmi2")))
#define VNET_GFNI_INLINE                                                                   \
	static inline __attribute__((target("gfni,avx512f,avx512bw,avx512vbmi2"), always_inline))

VNET_GFNI_INLINE __m512i vnet_gfni_times(__m512i input, const struct vnet_bulk *bulk, __u32 s)
{
	__m512i matrix = _mm512_set1_epi64(bulk->matrix[s]);

#if defined(__clang__) && __clang_major__ < 22
	/* Clang 14 and 16 encode a wrong address if this reads the matrix from memory. */
	asm("" : "+v"(matrix));
#endif
	return _mm512_gf2p8affine_epi64_epi8(input, matrix, 0);
}

VNET_GFNI_INLINE __m512i vnet_gfni_xor3(__m512i a, __m512i b, __m512i c)
{
	return _mm512_ternarylogic_epi32(a, b, c, 0x96);
}

/* Rows of 2 or 3 words, a vector for each word. */
VNET_GFNI_INLINE void vnet_gfni_turn_short(const __u8 *rows, __u32 words, __m512i turned[])
{
	const __m512i count = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
	const __m512i first = _mm512_loadu_si512(rows), second = _mm512_loadu_si512(rows + 64);

	for (__u32 word = 0; word < words; word++) {
		__m512i at = _mm512_add_epi32(_mm512_mullo_epi32(count, _mm512_set1_epi32(words)),
					      _mm512_set1_epi32(word));

		turned[word] = _mm512_permutex2var_epi32(first, at, second);
		if (words == 3) { /* of 48 words the last 16 */
			__m512i third = _mm512_loadu_si512(rows + 128);
			__mmask16 is_third = _mm512_cmpgt_epi32_mask(at, _mm512_set1_epi32(31));

			turned[word] = _mm512_mask_permutexvar_epi32(turned[word], is_third, at, third);
		}
	}
}

/* Rows of 8 or 9 words: eight rows of eight in each half. */
VNET_GFNI_INLINE void vnet_gfni_turn_long(const __u8 *rows, __u32 words, __m512i turned[])
{
	const __m512i low = _mm512_setr_epi64(0, 1, 8, 9, 4, 5, 12, 13);
	const __m512i high = _mm512_setr_epi64(2, 3, 10, 11, 6, 7, 14, 15);
	__m512i a[8], b[8];

	for (__u32 i = 0; i < 8; i++) {
		const __u8 *row = rows + 4 * words * i;
		__m256i left = _mm256_loadu_si256((const void *)row);
		__m256i right = _mm256_loadu_si256((const void *)(row + 32 * words));

		a[i] = _mm512_inserti64x4(_mm512_castsi256_si512(left), right, 1);
	}
	for (__u32 i = 0; i < 8; i += 2) {
		b[i] = _mm512_unpacklo_epi32(a[i], a[i + 1]);
		b[i + 1] = _mm512_unpackhi_epi32(a[i], a[i + 1]);
	}
	for (__u32 i = 0; i < 8; i += 4) {
		for (__u32 j = 0; j < 2; j++) {
			a[i + 2 * j] = _mm512_unpacklo_epi64(b[i + j], b[i + j + 2]);
			a[i + 2 * j + 1] = _mm512_unpackhi_epi64(b[i + j], b[i + j + 2]);
		}
	}
	for (__u32 i = 0; i < 4; i++) {
		turned[i] = _mm512_permutex2var_epi64(a[i], low, a[i + 4]);
		turned[i + 4] = _mm512_permutex2var_epi64(a[i], high, a[i + 4]);
	}
	if (words == 9) {
		__u32 last[16];

		for (__u32 i = 0; i < 16; i++)
			last[i] = vnet_u32(rows + 36 * i + 32);
		turned[8] = _mm512_loadu_si512(last);
	}
}

VNET_GFNI_INLINE void vnet_gfni_rows(const struct vnet_bulk *bulk, const __u8 *rows, __u32 words,
				     __u64 count, __u32 *hashes)
{
	for (__u64 row = 0; row < count; row += 16, rows += 64 * words) {
		__m512i word[9], even, odd;

		if (words < 8)
			vnet_gfni_turn_short(rows, words, word);
		else
			vnet_gfni_turn_long(rows, words, word);
		/* Words that begin before the input: zeros are there. */
		even = vnet_gfni_xor3(vnet_gfni_times(_mm512_slli_epi32(word[0], 24), bulk, 0),
				      vnet_gfni_times(_mm512_slli_epi32(word[0], 16), bulk, 1),
				      vnet_gfni_times(_mm512_slli_epi32(word[0], 8), bulk, 2));
		odd = vnet_gfni_times(word[0], bulk, 3);
		for (__u32 i = 1; i < words; i++) {
			__m512i a = _mm512_shrdi_epi32(word[i - 1], word[i], 8);
			__m512i b = _mm512_shrdi_epi32(word[i - 1], word[i], 16);
			__m512i c = _mm512_shrdi_epi32(word[i - 1], word[i], 24);

			even = vnet_gfni_xor3(even, vnet_gfni_times(a, bulk, 4 * i),
					      vnet_gfni_times(b, bulk, 4 * i + 1));
			odd = vnet_gfni_xor3(odd, vnet_gfni_times(c, bulk, 4 * i + 2),
					     vnet_gfni_times(word[i], bulk, 4 * i + 3));
		}
		/* And words that end behind it. */
		word[0] = word[words - 1];
		even = vnet_gfni_xor3(
			even,
			vnet_gfni_times(_mm512_srli_epi32(word[0], 8), bulk, 4 * words),
			vnet_gfni_times(_mm512_srli_epi32(word[0], 16), bulk, 4 * words + 1));
		odd = vnet_gfni_xor3(
			odd, even,
			vnet_gfni_times(_mm512_srli_epi32(word[0], 24), bulk, 4 * words + 2));
		_mm512_storeu_si512(hashes + row, odd);
	}
}

static inline VNET_GFNI int vnet_bulk_gfni_512(const struct vnet_bulk *bulk, const __u8 *rows,
					       __u32 width, __u64 count, __u32 *hashes)
{
	switch (width) {
	case 8:
		vnet_gfni_rows(bulk, rows, 2, count, hashes);
		return 1;
	case 12:
		vnet_gfni_rows(bulk, rows, 3, count, hashes);
		return 1;
	case 32:
		vnet_gfni_rows(bulk, rows, 8, count, hashes);
		return 1;
	case 36:
		vnet_gfni_rows(bulk, rows, 9, count, hashes);
		return 1;
	}
	return 0;
}

#undef VNET_GFNI
#undef VNET_GFNI_INLINE

static inline int vnet_bulk_can(__u32 method)
{
	__builtin_cpu_init(); /* not every C library has done it */
	switch (method) {
	case VNET_BULK_TABLES:
		return 1;
	case VNET_BULK_PCLMUL:
		return __builtin_cpu_supports("pclmul") && __builtin_cpu_supports("sse4.1");
	case VNET_BULK_VPCLMUL_256:
		return __builtin_cpu_supports("vpclmulqdq") && __builtin_cpu_supports("avx2");
	case VNET_BULK_VPCLMUL_512:
		return __builtin_cpu_supports("vpclmulqdq") && __builtin_cpu_supports("avx512bw");
	case VNET_BULK_GFNI_512:
		return __builtin_cpu_supports("gfni") && __builtin_cpu_supports("avx512bw") &&
		       __builtin_cpu_supports("avx512vbmi2");
	}
	return 0;
}

static inline int vnet_bulk_run(const struct vnet_bulk *bulk, const __u8 *rows, __u32 width,
				__u64 count, __u32 *hashes)
{
	switch (bulk->method) {
	case VNET_BULK_PCLMUL:
		return vnet_bulk_pclmul(bulk, rows, width, count, hashes);
	case VNET_BULK_VPCLMUL_256:
		return vnet_bulk_vpclmul_256(bulk, rows, width, count, hashes);
	case VNET_BULK_VPCLMUL_512:
		return vnet_bulk_vpclmul_512(bulk, rows, width, count, hashes);
	case VNET_BULK_GFNI_512:
		return vnet_bulk_gfni_512(bulk, rows, width, count, hashes);
	}
	return 0;
}

#endif
