// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
/* Toeplitz in bulk, and what a configuration says of a frame. */
#include "api.h"
#include "classify.h"
#include "toeplitz.h"

/* What `count` words at `input` add to the hash, from word `first` of it on. */
static inline __attribute__((always_inline)) __u32
hash_words(const struct vnet_config *config, const __u8 *input, __u32 first, __u32 count)
{
	__u32 hash = 0;

	for (__u32 i = 0; i < count; i++)
		hash ^= vnet_hash_word(config, first + i, vnet_u32(input + 4 * i));
	return hash;
}

API __u32 vh_toeplitz(const struct vnet_config *config, const __u8 *input, __u32 length)
{
	__u32 hash = 0;

	if (length > VNET_INPUT_LEN)
		length = VNET_INPUT_LEN;
	for (__u32 i = 0; i < length; i++)
		hash ^= config->toeplitz[i][input[i]];
	return hash;
}

API void vh_toeplitz_batch(const struct vnet_config *config, const __u8 *inputs, __u32 width,
			   __u64 count, __u32 *hashes)
{
	switch (width) { /* the widths of the hash types, each with its loop unrolled */
	case 8:
		for (__u64 i = 0; i < count; i++)
			hashes[i] = hash_words(config, inputs + 8 * i, 0, 2);
		break;
	case 12:
		for (__u64 i = 0; i < count; i++)
			hashes[i] = hash_words(config, inputs + 12 * i, 0, 3);
		break;
	case 32:
		for (__u64 i = 0; i < count; i++)
			hashes[i] = hash_words(config, inputs + 32 * i, 0, 8);
		break;
	case 36:
		for (__u64 i = 0; i < count; i++)
			hashes[i] = hash_words(config, inputs + 36 * i, 0, 9);
		break;
	default:
		for (__u64 i = 0; i < count; i++)
			hashes[i] = vh_toeplitz(config, inputs + width * i, width);
	}
}

void decide(const struct vh_config *config, const struct vnet_headers *headers,
	    struct vh_verdict *verdict)
{
	__u32 rule = config->rss.rules[headers->kind];

	verdict->report = rule & VNET_RULE_REPORT;
	if (verdict->report) {
		verdict->hash_value = vnet_hash(&config->rss, headers, rule);
		verdict->index = verdict->hash_value & config->rss.table_mask;
		verdict->queue = config->table[verdict->index];
	} else {
		verdict->hash_value = 0;
		verdict->index = ~0u;
		verdict->queue = config->rss.unclassified;
	}
}

API void vh_classify(const struct vh_config *config, const __u8 *frame, __u32 length, int is_l3,
		     struct vh_verdict *verdict)
{
	struct vnet_frame view = {
		.data = frame,
		.length = length,
		.is_l3 = is_l3,
		.tunnels = config->rss.tunnels,
	};
	struct vnet_headers headers;

	vnet_dissect(&view, &headers);
	decide(config, &headers, verdict);
}

API void vh_classify_batch(const struct vh_config *config, const __u8 *frames,
			   const __u64 *offsets, const __u32 *lengths, __u64 count, int is_l3,
			   struct vh_verdict *verdicts)
{
	for (__u64 i = 0; i < count; i++)
		vh_classify(config, frames + offsets[i], lengths[i], is_l3, &verdicts[i]);
}
