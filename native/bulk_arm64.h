/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0) OR Apache-2.0 */
/* Toeplitz in bulk on arm64: bulk_clmul.h says how, PMULL does it. */
#ifndef VNETHASH_BULK_ARM64_H
#define VNETHASH_BULK_ARM64_H

#include <arm_neon.h>
#include <asm/hwcap.h>
#include <sys/auxv.h>

#ifdef __clang__
#define VNET_PMULL __attribute__((target("aes")))
#define VNET_PMULL_INLINE static inline __attribute__((target("aes"), always_inline))
#else
#define VNET_PMULL __attribute__((target("+crypto")))
#define VNET_PMULL_INLINE static inline __attribute__((target("+crypto"), always_inline))
#endif

/* `size` bytes (4, 8, 12; or 16 of more), and zeros, each eight from last to first. */
VNET_PMULL_INLINE poly64x2_t vnet_pmull_load(const __u8 *at, __u32 size)
{
	uint64x2_t input;

	if (size >= 16) {
		input = vreinterpretq_u64_u8(vld1q_u8(at));
	} else {
		uint64_t half[2] = {};

		memcpy(half, at, size);
		input = vld1q_u64(half);
	}
	return vreinterpretq_p64_u8(vrev64q_u8(vreinterpretq_u8_u64(input)));
}

VNET_PMULL_INLINE uint32x4_t vnet_pmull_low(poly64x2_t input, __u64 key)
{
	return vreinterpretq_u32_p128(vmull_p64(vgetq_lane_p64(input, 0), key));
}

VNET_PMULL_INLINE uint32x4_t vnet_pmull_high(poly64x2_t input, __u64 key)
{
	return vreinterpretq_u32_p128(vmull_p64(vgetq_lane_p64(input, 1), key));
}

VNET_PMULL_INLINE void vnet_pmull_rows(const struct vnet_bulk *bulk, const __u8 *rows, __u32 words,
				       __u64 count, __u32 *hashes)
{
	for (__u64 row = 0; row < count; row += 4) {
		uint32x4_t sums[4], hash;

		for (__u32 i = 0; i < 4; i++, rows += 4 * words) {
			uint32x4_t sum = vdupq_n_u32(0), rest = vdupq_n_u32(0);

			for (__u32 word = 0; word < words; word += 4) {
				poly64x2_t input = vnet_pmull_load(rows + 4 * word,
								   4 * (words - word));
				__u32 half = word / 2;

				sum ^= vnet_pmull_low(input, bulk->low[half]);
				if (word + 1 < words)
					rest ^= vnet_pmull_low(input, bulk->high[half]);
				if (word + 2 < words)
					sum ^= vnet_pmull_high(input, bulk->low[half + 1]);
				if (word + 3 < words)
					rest ^= vnet_pmull_high(input, bulk->high[half + 1]);
			}
			sums[i] = sum ^ vextq_u32(rest, rest, 2);
		}
		hash = vcombine_u32(vget_low_u32(vzip2q_u32(sums[0], sums[1])),
				    vget_low_u32(vzip2q_u32(sums[2], sums[3])));
		hash = vreinterpretq_u32_u8(vrev32q_u8(vrbitq_u8(vreinterpretq_u8_u32(hash))));
		vst1q_u32(hashes + row, hash);
	}
}

static inline VNET_PMULL int vnet_bulk_pmull(const struct vnet_bulk *bulk, const __u8 *rows,
					     __u32 width, __u64 count, __u32 *hashes)
{
	switch (width) {
	case 8:
		vnet_pmull_rows(bulk, rows, 2, count, hashes);
		return 1;
	case 12:
		vnet_pmull_rows(bulk, rows, 3, count, hashes);
		return 1;
	case 32:
		vnet_pmull_rows(bulk, rows, 8, count, hashes);
		return 1;
	case 36:
		vnet_pmull_rows(bulk, rows, 9, count, hashes);
		return 1;
	}
	return 0;
}

#undef VNET_PMULL
#undef VNET_PMULL_INLINE

static inline int vnet_bulk_can(__u32 method)
{
	if (method == VNET_BULK_PMULL)
		return !!(getauxval(AT_HWCAP) & HWCAP_PMULL);
	return method == VNET_BULK_TABLES;
}

static inline int vnet_bulk_run(const struct vnet_bulk *bulk, const __u8 *rows, __u32 width,
				__u64 count, __u32 *hashes)
{
	if (bulk->method == VNET_BULK_PMULL)
		return vnet_bulk_pmull(bulk, rows, width, count, hashes);
	return 0;
}

#endif
