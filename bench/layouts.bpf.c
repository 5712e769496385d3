// SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0
/*
 * The Toeplitz hash by tables of several layouts, each as the programs `<layout>_12`
 * (two IPv4 addresses and ports) and `<layout>_36` (the same of IPv6): what justifies
 * the one that ships. Every one does the same work around it; `words` does that alone.
 *
 * A table says what some bits of the input add, as they lie in a little-endian word.
 */
#include "../native/bpf.h"

enum {
	IPV4_AT = 14 + 12, /* addresses and ports, without options in one piece */
	IPV6_AT = 14 + 8,
	WORDS_MAX = 9,
};

struct {
	__u64 flow; /* changes by `step` with each packet: sender and ports with it */
	__u64 step;
	__u32 nibbles[72][16];
	__u32 bytes[36][256];
	__u32 elevens[27][2048]; /* 64 bits are five times 11 and 9 */
	__u32 pairs[6][65536];   /* for IPv4 alone: of IPv6 they would have 4.5 MiB */
} layouts SEC(".bss");

/* The entry at `offset` of a table of `layouts`, in as few instructions as there can be. */
#define ENTRY(table, offset)                                                               \
	({                                                                                 \
		__u64 at_ = offset;                                                        \
		asm("%0 += %1" : "+r"(at_) : "r"(&layouts));                               \
		*(const __u32 *)(at_ + __builtin_offsetof(typeof(layouts), table));        \
	})

#define settle(x) asm volatile("" : "+r"(x))

static __always_inline __u32 by_words(const void *input, __u32 count)
{
	const __u32 *words = input;
	__u32 hash = 0;

	_Pragma("clang loop unroll(full)")
	for (__u32 i = 0; i < count; i++)
		hash ^= words[i];
	return hash;
}

static __always_inline __u32 by_nibbles(const void *input, __u32 count)
{
	const __u8 *bytes = input;
	__u32 hash = 0;

	_Pragma("clang loop unroll(full)")
	for (__u32 i = 0; i < 4 * count; i++) {
		__u64 byte = bytes[i];

		hash ^= ENTRY(nibbles[2 * i], byte << 2 & 0x3c);
		hash ^= ENTRY(nibbles[2 * i + 1], byte >> 2 & 0x3c);
		settle(hash);
	}
	return hash;
}

static __always_inline __u32 by_bytes(const void *input, __u32 count)
{
	const __u8 *bytes = input;
	__u32 hash = 0;

	_Pragma("clang loop unroll(full)")
	for (__u32 i = 0; i < 4 * count; i++) {
		__u64 offset = bytes[i];

		asm("%0 <<= 2" : "+r"(offset));
		hash ^= ENTRY(bytes[i], offset);
		settle(hash);
	}
	return hash;
}

static __always_inline __u32 by_elevens(const void *input, __u32 count)
{
	const __u64 *words = input;
	__u32 hash = 0, table = 0;

	_Pragma("clang loop unroll(full)")
	for (__u32 i = 0; i < (count + 1) / 2; i++) {
		int bits = 2 * i + 1 == count ? 32 : 64;
		__u64 word = bits == 64 ? words[i] : *(const __u32 *)&words[i];

		_Pragma("clang loop unroll(full)")
		for (int bit = 0; bit < bits; bit += 11) {
			__u64 offset = (bit ? word >> (bit - 2) : word << 2) & 0x1ffc;

			hash ^= ENTRY(elevens[table], offset);
			table++;
			settle(hash);
		}
	}
	return hash;
}

static __always_inline __u32 by_pairs(const void *input, __u32 count)
{
	const __u16 *pairs = input;
	__u32 hash = 0;

	_Pragma("clang loop unroll(full)")
	for (__u32 i = 0; i < 2 * count; i++) {
		hash ^= ENTRY(pairs[i], (__u64)pairs[i] << 2);
		settle(hash);
	}
	return hash;
}

/* Copy the input, which is `count` words at `at`, of the flow whose turn it is. */
static __always_inline int take(struct __sk_buff *skb, __u32 at, __u32 count, __u32 *words)
{
	const __u8 *data = (void *)(long)skb->data;
	__u32 senders = count / 2;
	__u64 flow;

	if (data + at + 4 * count > (const __u8 *)(long)skb->data_end)
		return 0;
	flow = layouts.flow += layouts.step;
	flow *= 0x9e3779b97f4a7c15;
	_Pragma("clang loop unroll(full)")
	for (__u32 i = 0; i < count; i++) {
		words[i] = *(const __u32 *)(data + at + 4 * i);
		if (i < senders || i == count - 1) {
			words[i] ^= (__u32)(flow >> 24);
			flow = flow << 9 | flow >> 55;
		}
	}
	asm volatile("" ::"r"(words) : "memory");
	return 1;
}

#define LAYOUT(layout, size, at)                                                           \
	SEC("tc")                                                                          \
	int layout##_##size(struct __sk_buff *skb)                                         \
	{                                                                                  \
		__u64 words[(WORDS_MAX + 1) / 2];                                          \
                                                                                           \
		if (!take(skb, at, size / 4, (__u32 *)words))                              \
			return 0;                                                          \
		return by_##layout(words, size / 4);                                       \
	}

LAYOUT(words, 12, IPV4_AT)
LAYOUT(words, 36, IPV6_AT)
LAYOUT(nibbles, 12, IPV4_AT)
LAYOUT(nibbles, 36, IPV6_AT)
LAYOUT(bytes, 12, IPV4_AT)
LAYOUT(bytes, 36, IPV6_AT)
LAYOUT(elevens, 12, IPV4_AT)
LAYOUT(elevens, 36, IPV6_AT)
LAYOUT(pairs, 12, IPV4_AT)

char LICENSE[] SEC("license") = "Dual BSD/GPL";
