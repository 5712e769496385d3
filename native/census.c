// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
/* What a configuration makes of the packets of a capture. */
#include <errno.h>
#include <stdlib.h>

#include "api.h"
#include "bulk.h"
#include "census.h"
#include "flows.h"
#include "timeline.h"

enum {
	BATCH = 128, /* packets that go each step together, so that none waits for memory */
	AHEAD = 8,   /* packets between the one being dissected and the one fetched */
};

struct vh_census {
	const struct vh_config *config;
	const struct vnet_bulk *bulk;
	struct flows flows;
	struct timeline timeline;
	struct vh_counted counted;
};

/* Packets on their way, and the flows of those that have one. */
struct batch {
	__u32 packets, flows;
	__s64 time_ns[BATCH];
	struct vnet_traffic traffic[BATCH];
	__u32 column[BATCH]; /* of the timeline */
	struct vh_flow flow[BATCH];
	__u64 place[BATCH];
	__u8 of[BATCH]; /* which of the packets the flow is of */
};

API struct vh_census *vh_census_new(const struct vh_config *config, const struct vnet_bulk *bulk,
				    __s64 window_ns)
{
	struct vh_census *census = calloc(1, sizeof(*census));

	if (!census)
		return NULL;
	census->config = config;
	census->bulk = bulk;
	if (flows_init(&census->flows) ||
	    timeline_init(&census->timeline, config->rss.table_mask + 2, window_ns)) {
		vh_census_free(census);
		return NULL;
	}
	return census;
}

API void vh_census_free(struct vh_census *census)
{
	flows_free(&census->flows);
	timeline_free(&census->timeline);
	free(census);
}

API struct vh_counted *vh_census_counted(struct vh_census *census)
{
	return &census->counted;
}

/* https://www.tcpdump.org/linktypes.html */
enum link_type {
	LINK_NULL = 0,
	LINK_ETHERNET = 1,
	LINK_RAW_BSD = 12, /* what some files have instead of the next */
	LINK_RAW_OPENBSD = 14,
	LINK_RAW = 101,
	LINK_LOOP = 108,
	LINK_SLL = 113,
	LINK_IPV4 = 228,
	LINK_IPV6 = 229,
	LINK_SLL2 = 276,
};

#define LLC 4 /* ETH_P_802_2: what there is instead of an EtherType */

/* Leave out what comes before the part that the dissector knows. */
static void skip(struct vnet_frame *frame, __u32 bytes, int is_l3)
{
	if (bytes > frame->length)
		bytes = frame->length;
	frame->data += bytes;
	frame->length -= bytes;
	frame->is_l3 = is_l3;
}

/*
 * 20 bytes with the EtherType in the first two, behind which there may be tags
 * as in Ethernet. Left is the IP packet, or nothing if it is none. Returns the
 * EtherType if it is another.
 */
static __u16 open_sll2(struct vnet_frame *frame)
{
	const __u8 *at = vnet_at(frame, 0, 20);
	__u16 type = at ? vnet_be16(at) : VNET_IPV4;
	__u32 offset = 20, version;
	struct vnet_l3 l3;

	for (__u32 tags = 0; tags < 2 && vnet_is_tag(type); tags++) {
		at = vnet_at(frame, offset, 4);
		type = at ? vnet_be16(at + 2) : VNET_IPV4;
		offset += 4;
	}
	if (type < VNET_TYPE_MIN) {
		l3 = vnet_find_snap(frame, offset);
		type = l3.type;
		offset = l3.offset;
	}
	if (type != VNET_IPV4 && type != VNET_IPV6)
		return type < VNET_TYPE_MIN ? LLC : type;
	version = type == VNET_IPV4 ? 4 : 6;
	at = vnet_at(frame, offset, 1);
	skip(frame, at && at[0] >> 4 == version ? offset : frame->length, 1);
	return 0;
}

/*
 * A frame as the dissector takes it, Ethernet or IP; or the EtherType, if it is
 * clear already that there is no IP packet in it. Returns 0 for other link types.
 */
static inline int open_frame(struct vnet_frame *frame, __u16 link_type, __u16 *other)
{
	*other = 0;
	if (link_type == LINK_ETHERNET)
		return 1;
	switch (link_type) {
	case LINK_RAW_BSD:
	case LINK_RAW_OPENBSD:
	case LINK_RAW:
	case LINK_IPV4:
	case LINK_IPV6:
		skip(frame, 0, 1);
		return 1;
	case LINK_NULL:
	case LINK_LOOP: /* a family in some byte order, numbered by some system: IP tells by itself */
		skip(frame, 4, 1);
		return 1;
	case LINK_SLL: /* 16 bytes, and the EtherType in the last two, as in Ethernet's 14 */
		skip(frame, 2, 0);
		return 1;
	case LINK_SLL2:
		*other = open_sll2(frame);
		return 1;
	}
	return 0;
}

static void count_unhashed(struct vh_census *census, enum vh_reason reason,
			   struct vnet_traffic traffic)
{
	struct vnet_traffic *unhashed = census->counted.unhashed + reason;

	unhashed->packets += traffic.packets;
	unhashed->bytes += traffic.bytes;
}

/* Whether the frame ends before its EtherType: behind at most two tags. */
static int is_cut(const struct vnet_frame *frame)
{
	const __u8 *type = vnet_at(frame, 12, 2);

	for (__u32 tags = 1; type && vnet_is_tag(vnet_be16(type)) && tags <= 2; tags++)
		type = vnet_at(frame, 12 + 4 * tags, 2);
	return !type;
}

/* A frame in which no IP header was found. */
static void count_other(struct vh_census *census, const struct vnet_frame *frame, __u16 type,
			struct vnet_traffic traffic)
{
	if (!type) {
		type = vnet_frame_l3(frame).type;
		if (type == VNET_IPV4 || type == VNET_IPV6 || frame->is_l3 || is_cut(frame)) {
			count_unhashed(census, VH_REASON_BROKEN_IP, traffic);
			return;
		}
	}
	census->counted.ether_types[type < VNET_TYPE_MIN ? 0 : type] += traffic.packets;
	count_unhashed(census, VH_REASON_NOT_IP, traffic);
}

/* The flow of headers, to be looked for; its hash is not worked out yet. */
static inline void set_flow(struct vh_flow *flow, const struct vnet_headers *headers, __u32 rule,
			    struct vnet_traffic traffic)
{
	*flow = (struct vh_flow){
		.packets = traffic.packets,
		.bytes = traffic.bytes,
		.kind = headers->kind,
		.report = rule & VNET_RULE_REPORT,
	};
	memcpy(flow->ports, &headers->ports, sizeof(flow->ports));
	if (headers->kind <= VNET_REPORT_UDPV4)
		memcpy(flow->addresses, headers->address, 8);
	else
		memcpy(flow->addresses,
		       rule & VNET_RULE_FINAL ? headers->final : headers->address, 32);
}

/* The flow that was put behind the others of the batch: where it will be looked for. */
static inline void add_flow(struct vh_census *census, struct batch *batch)
{
	struct vh_flow *flow = batch->flow + batch->flows;
	__u64 place = flows_place(&census->flows, flow);

	flows_fetch_slot(&census->flows, place);
	batch->place[batch->flows] = place;
	batch->of[batch->flows] = batch->packets;
	batch->flows++;
	if (!flow->report)
		count_unhashed(census, VH_REASON_TYPE_OFF,
			       (struct vnet_traffic){ flow->packets, flow->bytes });
}

static inline void add_frame(struct vh_census *census, struct batch *batch, const __u8 *memory,
			     const struct vh_frame *found)
{
	const struct vnet_config *rss = &census->config->rss;
	struct vnet_frame frame = {
		.data = memory + found->offset,
		.length = found->length,
		.tunnels = rss->tunnels,
	};
	struct vnet_traffic traffic = {
		.packets = 1,
		.bytes = found->original > found->length ? found->original : found->length,
	};
	struct vnet_headers headers;
	__u16 other;

	census->counted.captured_short += found->original > found->length;
	batch->time_ns[batch->packets] = found->time_ns;
	batch->traffic[batch->packets] = traffic;
	batch->column[batch->packets] = rss->table_mask + 1;
	if (!open_frame(&frame, found->link_type, &other)) {
		count_unhashed(census, VH_REASON_LINK_TYPE, traffic);
		return;
	}
	if (!other) {
		vnet_dissect(&frame, &headers);
		if (headers.kind) {
			set_flow(batch->flow + batch->flows, &headers, rss->rules[headers.kind],
				 traffic);
			add_flow(census, batch);
			return;
		}
	}
	count_other(census, &frame, other, traffic);
}

/* Report types come in threes, the second and third with ports. */
static void hash_width(const struct vh_census *census, __u32 width, const __u32 *fresh,
		       __u32 count)
{
	struct vh_flow *flows = census->flows.flow;
	__u8 rows[BATCH * VNET_INPUT_LEN];
	__u32 hashes[BATCH];

	for (__u32 i = 0; i < count; i++) {
		const struct vh_flow *flow = flows + fresh[i];
		__u8 *row = rows + i * width;

		memcpy(row, flow->addresses, width - 4);
		if (census->config->rss.rules[flow->kind] & VNET_RULE_PORTS)
			memcpy(row + width - 4, flow->ports, 4);
		else
			memset(row + width - 4, 0, 4); /* which adds nothing */
	}
	vnet_bulk_hash(census->bulk, rows, width, count, hashes);
	for (__u32 i = 0; i < count; i++)
		flows[fresh[i]].hash_value = hashes[i];
}

static inline int is_absurd(__s64 time_ns)
{
	return time_ns < -VH_TIME_MAX || time_ns > VH_TIME_MAX;
}

/* Count the batch: first in its flows, then, unless that is done, in windows of time. */
static void settle(struct vh_census *census, struct batch *batch, int is_in_windows)
{
	struct flows *flows = &census->flows;
	__u32 number[BATCH], v4[BATCH], v6[BATCH], v4s = 0, v6s = 0;

	for (__u32 i = 0; i < batch->flows; i++)
		flows_fetch_flow(flows, batch->place[i]);
	for (__u32 i = 0; i < batch->flows; i++) {
		const struct vh_flow *flow = batch->flow + i;
		int is_new;

		number[i] = flows_find(flows, batch->place[i], flow, &is_new);
		if (!is_new) {
			flows->flow[number[i]].packets += flow->packets;
			flows->flow[number[i]].bytes += flow->bytes;
		} else if (flow->report && flow->kind <= VNET_REPORT_UDPV4) {
			v4[v4s++] = number[i];
		} else if (flow->report) {
			v6[v6s++] = number[i];
		}
	}
	hash_width(census, 12, v4, v4s);
	hash_width(census, 36, v6, v6s);
	for (__u32 i = 0; i < batch->flows; i++) {
		const struct vh_flow *flow = flows->flow + number[i];

		if (flow->report)
			batch->column[batch->of[i]] =
				flow->hash_value & census->config->rss.table_mask;
	}
	for (__u32 i = 0; i < batch->packets && !is_in_windows; i++) {
		struct timeline *timeline = &census->timeline;
		struct vnet_traffic *traffic = is_absurd(batch->time_ns[i]) ?
			timeline->untimed : timeline_at(timeline, batch->time_ns[i]);

		traffic[batch->column[i]].packets += batch->traffic[i].packets;
		traffic[batch->column[i]].bytes += batch->traffic[i].bytes;
	}
	batch->packets = 0;
	batch->flows = 0;
}

API int vh_census_frames(struct vh_census *census, const __u8 *memory, __u64 size,
			 const struct vh_frame *frames, __u32 count)
{
	struct batch batch = { .packets = 0 };
	int error;

	for (__u32 i = 0; i < count; i++)
		if (frames[i].offset > size || frames[i].length > size - frames[i].offset)
			return -EFAULT;
	error = flows_reserve(&census->flows, count);
	if (error)
		return error;
	for (__u32 i = 0; i < count; i++) {
		if (i + AHEAD < count)
			__builtin_prefetch(memory + frames[i + AHEAD].offset);
		add_frame(census, &batch, memory, frames + i);
		if (++batch.packets == BATCH)
			settle(census, &batch, 0);
	}
	settle(census, &batch, 0);
	census->counted.frames += count;
	return 0;
}

API int vh_census_flows(struct vh_census *census, const struct vh_flow *given, const __s64 *times,
			__u64 count)
{
	const struct vnet_config *rss = &census->config->rss;
	struct batch batch = { .packets = 0 };
	int error;

	for (__u64 i = 0; i < count; i++)
		if (!given[i].kind || given[i].kind >= VNET_REPORTS)
			return -EINVAL;
	error = flows_reserve(&census->flows, count);
	if (error)
		return error;
	for (__u64 i = 0; i < count; i++) {
		struct vh_flow *flow = batch.flow + batch.flows;

		*flow = given[i];
		flow->hash_value = 0;
		flow->report = rss->rules[flow->kind] & VNET_RULE_REPORT;
		memset(flow->reserved, 0, sizeof(flow->reserved));
		if (flow->kind <= VNET_REPORT_UDPV4)
			memset(flow->addresses + 8, 0, 24);
		if ((flow->kind - 1) % 3 == 0)
			memset(flow->ports, 0, sizeof(flow->ports));
		batch.time_ns[batch.packets] = times ? times[i] : VH_NO_TIME;
		batch.traffic[batch.packets] =
			(struct vnet_traffic){ flow->packets, flow->bytes };
		batch.column[batch.packets] = rss->table_mask + 1;
		add_flow(census, &batch);
		if (++batch.packets == BATCH)
			settle(census, &batch, !times);
	}
	settle(census, &batch, !times);
	return 0;
}

API int vh_census_window(struct vh_census *census, __s64 length_ns, __s64 start_ns,
			 const struct vnet_traffic *traffic)
{
	struct timeline *timeline = &census->timeline;
	struct vnet_traffic *to = timeline->untimed;

	if (start_ns != VH_NO_TIME) {
		/* The first window may begin before the earliest time. */
		if (length_ns > VH_TIME_MAX || start_ns > VH_TIME_MAX ||
		    start_ns < -VH_TIME_MAX - length_ns ||
		    timeline_coarsen(timeline, length_ns))
			return -EINVAL;
		to = timeline_find(timeline, start_ns);
	}
	for (__u32 column = 0; column < timeline->columns; column++) {
		to[column].packets += traffic[column].packets;
		to[column].bytes += traffic[column].bytes;
	}
	return 0;
}

API void vh_census_size(const struct vh_census *census, struct vh_census_size *size)
{
	*size = (struct vh_census_size){
		.flows = census->flows.count,
		.windows = census->timeline.rows,
		.columns = census->timeline.columns,
		.window_ns = census->timeline.length_ns,
	};
}

API void vh_census_read(const struct vh_census *census, struct vh_flow *flows, __s64 *starts_ns,
			struct vnet_traffic *traffic)
{
	const struct timeline *timeline = &census->timeline;
	size_t row = timeline->columns * sizeof(*traffic);

	memcpy(flows, census->flows.flow, census->flows.count * sizeof(*flows));
	for (__u32 i = 0; i < timeline->rows; i++, traffic += timeline->columns) {
		const struct window *window = timeline->window + i;

		starts_ns[i] = window->number * timeline->length_ns;
		memcpy(traffic, timeline->traffic + (__u64)window->row * timeline->columns, row);
	}
	memcpy(traffic, timeline->untimed, row);
}
