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
		.state_config = offsetof(struct vnet_state, config),
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

/*
 * Write the slot that is not in force, then put it in force. The hash stage
 * takes a slot for whole only while its generation is the one in force, so
 * every packet is decided by one configuration.
 */
API void vh_publish(struct vnet_state *state, __u64 *table, __u32 table_words,
		    const struct vh_config *config)
{
	__u32 generation = state->generation + 1;
	struct vnet_config *slot;

	if (generation == 0) /* means "being written" */
		generation = 2;
	slot = &state->config[generation & 1];
	table += (generation & 1) * table_words;

	__atomic_store_n(&slot->generation, 0, __ATOMIC_RELAXED);
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	memcpy((__u8 *)slot + sizeof(slot->generation),
	       (const __u8 *)&config->rss + sizeof(slot->generation),
	       sizeof(*slot) - sizeof(slot->generation));
	for (__u32 i = 0; i < VNET_TABLE_NEAR && i <= slot->table_mask; i++)
		slot->near[i] = config->table[i];
	memcpy(table, config->table, (config->rss.table_mask + 1) * sizeof(config->table[0]));
	__atomic_store_n(&slot->generation, generation, __ATOMIC_RELEASE);
	__atomic_store_n(&state->generation, generation, __ATOMIC_SEQ_CST);
}
