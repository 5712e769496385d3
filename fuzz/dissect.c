// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
/*
 * Coverage-guided fuzzing of the dissector, by libFuzzer: tools/fuzz.
 *
 * An input is a header, which says the configuration, and a frame. The frame
 * is classified where AddressSanitizer sees a read of one byte too many, on
 * either side, and its verdict is held against what any verdict has to be.
 * Whether it is the right one is for tests/differential to say, which knows
 * this format (corpus.py) and is given what the fuzzer found.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "core.h"

struct input {
	__u16 hash_types;
	__u16 tunnels;
	__u8 flags;
	__u8 entries_log2;
	__u8 frame[];
} __attribute__((packed));

enum {
	IS_L3 = 1,
	QUEUES = 256,
	ENTRIES_MAX = 128,
};

static void require(int holds)
{
	if (!holds)
		abort();
}

struct setup {
	struct vnet_config rss;
	__u16 table[ENTRIES_MAX];
};

/* A configuration is kept for the next input that has its hash types: tables take time to fill. */
static const struct vh_config *configured(const struct input *input)
{
	static struct setup *setups[VNET_HASH_ALL + 1];
	__u32 types = input->hash_types & VNET_HASH_ALL;
	struct setup *setup = setups[types];

	if (!setup) {
		setup = setups[types] = calloc(1, sizeof(*setup));
		require(setup != NULL);
		setup->rss.hash_types = types;
		setup->rss.unclassified = QUEUES - 1;
		setup->rss.queues = QUEUES;
		for (int i = 0; i < VNET_KEY_LEN; i++)
			setup->rss.key[i] = 37 * i + 1;
		for (int i = 0; i < ENTRIES_MAX; i++)
			setup->table[i] = i * 7 % QUEUES;
		vh_fill_tables(&setup->rss);
	}
	setup->rss.tunnels = input->tunnels & VNET_TUNNEL_ALL;
	setup->rss.table_mask = (1u << input->entries_log2 % 8) - 1;
	return (const struct vh_config *)setup;
}

/* Classify a copy that begins `shift` bytes into memory that ends with the frame. */
static struct vh_verdict classify(const struct vh_config *config, const __u8 *frame, size_t length,
				  int is_l3, size_t shift)
{
	struct vh_verdict verdict;
	__u8 *memory = malloc(shift + length);

	require(memory != NULL);
	memcpy(memory + shift, frame, length);
	memset(&verdict, 0xa5, sizeof(verdict)); /* every field has to be written */
	vh_classify(config, memory + shift, length, is_l3, &verdict);
	free(memory);
	return verdict;
}

static int is_same(const struct vh_verdict *left, const struct vh_verdict *right)
{
	return left->hash_value == right->hash_value && left->index == right->index &&
	       left->report == right->report && left->queue == right->queue;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const struct input *input = (const void *)data;
	const struct vh_config *config;
	struct vh_verdict verdict, again;
	size_t length;
	int is_l3;

	if (size < sizeof(*input))
		return 0;
	config = configured(input);
	length = size - sizeof(*input);
	is_l3 = input->flags & IS_L3;
	verdict = classify(config, input->frame, length, is_l3, 0);

	/* Only a type that is enabled, and a queue that the table has for the hash. */
	require(verdict.report < VNET_REPORTS);
	if (verdict.report == VNET_REPORT_NONE) {
		require(!verdict.hash_value && verdict.index == ~0u);
		require(verdict.queue == config->rss.unclassified);
	} else {
		require(config->rss.hash_types >> (verdict.report - 1) & 1);
		require(verdict.index == (verdict.hash_value & config->rss.table_mask));
		require(verdict.queue == config->table[verdict.index]);
	}

	/* Where the frame lies makes no difference. */
	again = classify(config, input->frame, length, is_l3, 1);
	require(is_same(&verdict, &again));
	return 0;
}
