// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
/* A configuration as tables, and how it comes into force. */
#include <stddef.h>
#include <string.h>

#include "api.h"
#include "key.h"

API void vh_layout(struct vh_layout *layout)
{
	*layout = (struct vh_layout){
		.record = sizeof(struct vnet_record),
		.hdr = sizeof(struct vnet_hdr),
		.config = sizeof(struct vnet_config),
		.config_toeplitz = offsetof(struct vnet_config, toeplitz),
		.state = sizeof(struct vnet_state),
		.state_tables = offsetof(struct vnet_state, tables),
		.counters = sizeof(struct vnet_counters),
		.verdict = sizeof(struct vh_verdict),
		.packet = sizeof(struct vh_packet),
		.packet_header = offsetof(struct vh_packet, header),
	};
}

API void vh_fill_tables(struct vnet_config *config)
{
	vnet_fill_tables(config);
}

/* Another key's tables: good for the hash stage once they name its generation. */
static void write_tables(struct vnet_config *tables, const struct vnet_config *config,
			 __u32 generation)
{
	__atomic_store_n(&tables->key_generation, 0, __ATOMIC_RELAXED);
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	memcpy(tables->key, config->key, sizeof(tables->key));
	memcpy(tables->toeplitz, config->toeplitz, sizeof(tables->toeplitz));
	__atomic_store_n(&tables->key_generation, generation, __ATOMIC_RELEASE);
}

/*
 * Write the slot that is not in force, and the tables if the key is another,
 * then put it in force. The hash stage takes a slot for whole only while its
 * generation is the one in force, so every packet is decided by one
 * configuration.
 */
API void vh_publish(struct vnet_state *state, __u64 *table, __u32 table_words,
		    const struct vh_config *config)
{
	__u32 generation = state->generation + 1;
	__u32 key_generation = state->tables.key_generation;
	struct vnet_config *slot;

	if (generation == 0) /* means "being written" */
		generation = 2;
	slot = (struct vnet_config *)&state->slot[generation & 1];
	if (!key_generation || memcmp(state->tables.key, config->rss.key, VNET_KEY_LEN))
		key_generation = generation;
	table += (generation & 1) * table_words;

	__atomic_store_n(&slot->generation, 0, __ATOMIC_RELAXED);
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	memcpy((__u8 *)slot + sizeof(slot->generation),
	       (const __u8 *)&config->rss + sizeof(slot->generation),
	       sizeof(struct vnet_slot) - sizeof(slot->generation));
	slot->key_generation = key_generation;
	for (__u32 i = 0; i < VNET_TABLE_NEAR && i <= slot->table_mask; i++)
		slot->near[i] = config->table[i];
	memcpy(table, config->table, (config->rss.table_mask + 1) * sizeof(config->table[0]));
	__atomic_store_n(&slot->generation, generation, __ATOMIC_RELEASE);
	if (key_generation == generation)
		write_tables(&state->tables, &config->rss, generation);
	__atomic_store_n(&state->generation, generation, __ATOMIC_SEQ_CST);
}
