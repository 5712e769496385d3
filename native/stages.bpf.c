// SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0
/*
 * The two stages of a steered tap.
 *
 * hash_stage runs at the device's egress hook, before the kernel chooses a
 * queue: it dissects, hashes, looks the queue up, leaves it in the packet's
 * queue_mapping, and puts the hash record in front of the frame when asked.
 * steering_stage is the TUNSETSTEERINGEBPF program and returns that queue.
 *
 * Neither drops a packet, whatever happens.
 */
#include "bpf.h"
#include "toeplitz.h"

enum {
	GO_ON = -1, /* TCX_NEXT, and TC_ACT_UNSPEC for clsact: to the next program */
};

const volatile struct vnet_device device = { .table_words = VNET_TABLE_MAX / 4 };
struct vnet_state state;

/* The indirection tables of both configurations, four queues a word. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 2 * VNET_TABLE_MAX / 4);
	__type(key, __u32);
	__type(value, __u64);
} indirection SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, VNET_QUEUES_MAX);
	__type(key, __u32);
	__type(value, struct vnet_counters);
} counters SEC(".maps");

struct verdict {
	__u32 hash_value;
	__u32 rule; /* enum vnet_rule */
	__u32 queue;
	__u32 reporting;
};

/* An atomic operation that fetches is a full barrier; on the stack nobody contends for it. */
static __always_inline void order_loads(void)
{
	__u64 local = 0, fetched;

	barrier();
	if (!device.weakly_ordered)
		return;
	fetched = __sync_fetch_and_add(&local, 1);
	opaque(fetched);
}

static __always_inline __u32 table_lookup(__u32 generation, __u32 index)
{
	__u32 word = (generation & 1) * device.table_words + (index >> 2);
	__u64 *queues = bpf_map_lookup_elem(&indirection, &word);

	return queues ? *queues >> (index & 3) * 16 & 0xffff : 0;
}

/*
 * Hash, report type, queue and reporting of one and the same configuration.
 * User space rewrites the slot that is not in force, so it takes two changes
 * during one packet to be caught reading; then once more. Caught four times
 * over, the packet goes unclassified.
 */
static __always_inline struct verdict decide(const struct vnet_headers *headers)
{
	struct verdict verdict;

	VNET_KEEP_LOOP
	for (int i = 0; i < 2; i++) {
		/* Or the compiler takes the headers apart before the loop and spills. */
		opaque(headers);
		__u32 generation = READ_ONCE(state.generation);
		const struct vnet_config *config = &state.config[generation & 1];

		verdict.reporting = config->reporting;
		verdict.rule = config->rules[headers->kind & 15];
		if (headers->kind && verdict.rule & VNET_RULE_REPORT) {
			verdict.hash_value = vnet_hash(config, headers, verdict.rule);
			verdict.queue =
				table_lookup(generation, verdict.hash_value & config->table_mask);
		} else {
			verdict.hash_value = 0;
			verdict.queue = config->unclassified;
		}
		order_loads();
		if (READ_ONCE(config->generation) == generation)
			return verdict;
	}
	return (struct verdict){};
}

static __always_inline void store_record(struct __sk_buff *skb, const struct verdict *verdict)
{
	__u8 *data = (void *)(long)skb->data;

	if (data + VNET_RECORD_LEN > (__u8 *)(long)skb->data_end)
		return; /* cannot be: change_head() has just made this room */
	*(struct vnet_record *)data = (struct vnet_record){
		.hash_value = verdict->hash_value,
		.hash_report = verdict->rule & VNET_RULE_REPORT,
		.mark = { VNET_MARK_0, VNET_MARK_1 },
	};
}

static __always_inline int refused(long error)
{
	return error == -22 /* EINVAL */ ? VNET_UNMARKED_TOO_LARGE : VNET_UNMARKED_NO_ROOM;
}

static __always_inline void restore_tags(struct __sk_buff *skb, const __u16 protocol[2],
					 const __u16 tci[2], int tags)
{
	if (tags == 2)
		bpf_skb_vlan_push(skb, protocol[1], tci[1]);
	bpf_skb_vlan_push(skb, protocol[0], tci[0]);
}

/*
 * Make room for the record in front of a frame with an offloaded VLAN tag,
 * which the driver would insert 12 bytes behind the start of the record. So
 * the tag goes where it belongs, into the frame; and so does a second one,
 * because taking an offloaded tag away offloads the next. Returns as
 * prepend() does.
 */
static __noinline int make_room_tagged(struct __sk_buff *skb)
{
	__u16 protocol[2] = {}, tci[2] = {}; /* protocol in network order */
	__u32 addresses[3], room;
	__u16 in_band[4];
	long error;
	int tags = 1;

	protocol[0] = skb->vlan_proto;
	tci[0] = skb->vlan_tci;
	if (bpf_skb_vlan_pop(skb))
		return VNET_UNMARKED_VLAN;
	if (skb->vlan_present) {
		tags = 2;
		protocol[1] = skb->vlan_proto;
		tci[1] = skb->vlan_tci;
		error = bpf_skb_vlan_pop(skb);
		if (error || skb->vlan_present) {
			restore_tags(skb, protocol, tci, error ? 1 : 2);
			return VNET_UNMARKED_VLAN;
		}
	}
	room = VNET_RECORD_LEN + 4 * tags;
	error = bpf_skb_change_head(skb, room, 0);
	if (error) {
		restore_tags(skb, protocol, tci, tags);
		return refused(error);
	}
	in_band[0] = protocol[0];
	in_band[1] = __builtin_bswap16(tci[0]);
	in_band[2] = protocol[1];
	in_band[3] = __builtin_bswap16(tci[1]);
	bpf_skb_load_bytes(skb, room, addresses, 12);
	bpf_skb_store_bytes(skb, VNET_RECORD_LEN, addresses, 12, 0);
	bpf_skb_store_bytes(skb, VNET_RECORD_LEN + 12, in_band, tags == 2 ? 8 : 4, 0);
	return -1;
}

/* Put the hash record in front. Returns why not (enum vnet_unmarked), or -1. */
static __always_inline int prepend(struct __sk_buff *skb, const struct verdict *verdict)
{
	int reason = -1;
	long error;

	/*
	 * Software segmentation checks that the checksum starts where the UDP
	 * header does, and drops what has a record in front.
	 */
	if (skb->gso_size && verdict->rule & VNET_RULE_UDP && !state.record_udp_gso)
		return VNET_UNMARKED_UDP_GSO;
	if (skb->vlan_present) {
		reason = make_room_tagged(skb);
	} else {
		error = bpf_skb_change_head(skb, VNET_RECORD_LEN, 0);
		if (error)
			reason = refused(error);
	}
	if (reason < 0)
		store_record(skb, verdict);
	return reason;
}

SEC("tc")
int hash_stage(struct __sk_buff *skb)
{
	__u64 scratch[VNET_SCRATCH / 8];
	struct vnet_frame frame = {
		.skb = skb,
		.scratch = scratch,
		.data = (void *)(long)skb->data,
		.data_end = (void *)(long)skb->data_end,
		.length = skb->len,
	};
	struct vnet_headers headers;
	struct vnet_counters *counter;
	struct verdict verdict;
	__u32 report;
	int reason;

	vnet_dissect(&frame, &headers, device.is_l3);
	verdict = decide(&headers);
	skb->queue_mapping = verdict.queue;

	counter = bpf_map_lookup_elem(&counters, &verdict.queue);
	report = verdict.rule & VNET_RULE_REPORT;
	if (counter && report < VNET_REPORTS) {
		counter->by_report[report].packets++;
		counter->by_report[report].bytes += frame.length;
	}
	if (verdict.reporting == VNET_REPORTING_RECORD) {
		reason = prepend(skb, &verdict);
		if (counter && reason >= 0 && reason < VNET_UNMARKED_REASONS)
			counter->unmarked[reason]++;
	}
	return GO_ON;
}

SEC("socket")
int steering_stage(struct __sk_buff *skb)
{
	return skb->queue_mapping;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
