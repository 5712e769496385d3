// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
/* Toeplitz in bulk, and what a configuration says of a frame. */
#include <errno.h>

#include "api.h"
#include "bulk.h"
#include "classify.h"

API __u32 vh_toeplitz(const struct vnet_config *config, const __u8 *input, __u32 length)
{
	__u32 hash = 0;

	if (length > VNET_INPUT_LEN)
		length = VNET_INPUT_LEN;
	for (__u32 i = 0; i < length; i++)
		hash ^= config->toeplitz[i][input[i]];
	return hash;
}

API void vh_bulk_init(struct vnet_bulk *bulk, const struct vnet_config *config)
{
	vnet_bulk_init(bulk, config);
}

API int vh_bulk_use(struct vnet_bulk *bulk, __u32 method)
{
	return vnet_bulk_use(bulk, method) ? -ENOTSUP : 0;
}

API void vh_bulk_hash(const struct vnet_bulk *bulk, const __u8 *rows, __u32 width, __u64 count,
		      __u32 *hashes)
{
	vnet_bulk_hash(bulk, rows, width, count, hashes);
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

API __u64 vh_classify_batch(const struct vh_config *config, const struct vnet_bulk *bulk,
			    const __u8 *memory, __u64 size, const __u64 *offsets,
			    const __u32 *lengths, __u64 count, int is_l3,
			    struct vh_verdict *verdicts)
{
	enum { SOME = 8 * VNET_BULK_FRAMES };
	__u32 hashes[SOME];
	__u8 reports[SOME];

	for (__u64 i = 0; i < count; i++)
		if (offsets[i] > size || lengths[i] > size - offsets[i])
			return i;
	for (__u64 done = 0; done < count; done += SOME) {
		__u32 some = count - done < SOME ? count - done : SOME;

		vnet_bulk_frames(bulk, memory, offsets + done, lengths + done, some, is_l3, hashes,
				 reports);
		for (__u32 i = 0; i < some; i++) {
			__u32 index = hashes[i] & config->rss.table_mask;

			verdicts[done + i] = (struct vh_verdict){
				.hash_value = hashes[i],
				.index = reports[i] ? index : ~0u,
				.report = reports[i],
				.queue = reports[i] ? config->table[index]
						    : config->rss.unclassified,
			};
		}
	}
	return count;
}
