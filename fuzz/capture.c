// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
/*
 * Coverage-guided fuzzing of the walk through captures and of the census, by
 * libFuzzer: tools/fuzz.
 *
 * An input is a header, which says what the capture is like, and records of
 * it. They lie where AddressSanitizer sees a read of one byte too many. What
 * the walk finds is held against what frames have to be, and what the census
 * counts against the number of frames; that parts add up to the whole is
 * required too. Whether frames are the right ones is for
 * tests/unit/test_capture_walk.py to say.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "bulk.h"
#include "census.h"

struct input {
	__u8 flags;
	__u8 interfaces;
	__u8 resolution; /* shift and powers of ten of the interfaces */
	__u16 snaplen;
	__s64 offset;
	__u8 records[];
} __attribute__((packed));

enum {
	IS_PCAPNG = 1,
	IS_SWAPPED = 2,
	INTERFACES_MAX = 4,
	FRAMES_MAX = 16,
	ENTRIES = 4,
};

static const __u16 link_types[INTERFACES_MAX] = { 1, 276, 113, 101 };

static void require(int holds)
{
	if (!holds)
		abort();
}

static struct vh_config *configured(void)
{
	static struct {
		struct vnet_config rss;
		__u16 table[ENTRIES];
	} setup;

	if (!setup.rss.queues) {
		setup.rss.hash_types = VNET_HASH_ALL & ~VNET_HASH_UDPV6;
		setup.rss.tunnels = VNET_TUNNEL_ALL;
		setup.rss.queues = ENTRIES;
		setup.rss.table_mask = ENTRIES - 1;
		for (int i = 0; i < VNET_KEY_LEN; i++)
			setup.rss.key[i] = 37 * i + 1;
		vh_fill_tables(&setup.rss);
	}
	return (struct vh_config *)&setup;
}

static struct vh_census *census(void)
{
	static struct vnet_bulk bulk;
	struct vh_census *census;

	vh_bulk_init(&bulk, &configured()->rss);
	census = vh_census_new(configured(), &bulk, 1000);
	require(census != NULL);
	return census;
}

/* What a census counted; the caller frees the flows. */
struct counted {
	struct vh_census_size size;
	struct vh_flow *flows;
	__u64 packets, bytes;
};

static struct counted read_census(const struct vh_census *census)
{
	struct counted counted = {};
	struct vnet_traffic *traffic;
	__s64 *starts;
	size_t cells;

	vh_census_size(census, &counted.size);
	cells = (counted.size.windows + 1ul) * counted.size.columns;
	counted.flows = malloc(counted.size.flows * sizeof(*counted.flows) + 1);
	starts = malloc(counted.size.windows * sizeof(*starts) + 1);
	traffic = malloc(cells * sizeof(*traffic));
	require(counted.flows && starts && traffic);
	vh_census_read(census, counted.flows, starts, traffic);
	for (__u32 i = 1; i < counted.size.windows; i++)
		require(starts[i - 1] < starts[i]);
	for (size_t i = 0; i < cells; i++) {
		counted.packets += traffic[i].packets;
		counted.bytes += traffic[i].bytes;
	}
	free(starts);
	free(traffic);
	return counted;
}

/* Walk a copy that ends with its memory, counting as it goes. Returns frames and their bytes. */
static struct vnet_traffic walk(const struct vh_capture *capture, const __u8 *records, size_t size,
				struct vh_census *census)
{
	__u8 *memory = malloc(size + 1);
	struct vnet_traffic traffic = {};
	struct vh_frame frames[FRAMES_MAX];
	struct vh_walked walked;
	size_t at = 0;

	require(memory != NULL);
	memcpy(memory + 1, records, size);
	do {
		memset(&walked, 0xa5, sizeof(walked));
		vh_capture_walk(capture, memory + 1 + at, size - at, frames, FRAMES_MAX, &walked);
		require(walked.used <= size - at && walked.frames <= FRAMES_MAX);
		require(walked.end != VH_WALK_FULL || walked.used);
		for (__u32 i = 0; i < walked.frames; i++) {
			require(frames[i].length <= VH_FRAME_MAX);
			require(frames[i].offset + frames[i].length <= walked.used);
			traffic.packets++;
			traffic.bytes += frames[i].original > frames[i].length ?
				frames[i].original : frames[i].length;
		}
		require(!vh_census_frames(census, memory + 1 + at, walked.used, frames,
					  walked.frames));
		at += walked.used;
	} while (walked.end == VH_WALK_FULL);
	free(memory);
	return traffic;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const struct input *input = (const void *)data;
	struct vh_interface interfaces[INTERFACES_MAX];
	struct vh_census *whole, *again;
	struct vnet_traffic traffic;
	struct vh_capture capture;
	struct counted counted, added;

	if (size < sizeof(*input))
		return 0;
	size -= sizeof(*input);
	capture = (struct vh_capture){
		.is_pcapng = input->flags & IS_PCAPNG,
		.is_swapped = !!(input->flags & IS_SWAPPED),
		.interfaces = input->flags & IS_PCAPNG ? input->interfaces % (INTERFACES_MAX + 1)
						       : 1,
		.interface = interfaces,
	};
	for (int i = 0; i < INTERFACES_MAX; i++)
		interfaces[i] = (struct vh_interface){
			.multiply = input->resolution & 1 ? 1 : 1000,
			.divide = input->resolution & 2 ? 1 : 1000,
			.shift = capture.is_pcapng ? input->resolution >> 2 : 0,
			.offset = input->offset,
			.snaplen = input->snaplen,
			.link_type = link_types[i],
		};
	whole = census();
	traffic = walk(&capture, input->records, size, whole);
	counted = read_census(whole);
	require(counted.packets == traffic.packets && counted.bytes == traffic.bytes);
	require(vh_census_counted(whole)->frames == traffic.packets);

	/* Flows counted again are as many, and have twice as much. */
	again = census();
	require(!vh_census_flows(again, counted.flows, NULL, counted.size.flows));
	require(!vh_census_flows(again, counted.flows, NULL, counted.size.flows));
	added = read_census(again);
	require(added.size.flows == counted.size.flows && !added.packets);
	for (__u64 i = 0; i < added.size.flows; i++) {
		require(added.flows[i].packets == 2 * counted.flows[i].packets);
		require(added.flows[i].hash_value == counted.flows[i].hash_value);
		require(added.flows[i].report == counted.flows[i].report);
	}
	free(counted.flows);
	free(added.flows);
	vh_census_free(whole);
	vh_census_free(again);
	return 0;
}
