/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0 */
/*
 * A hash program as the steering program of a kernel of the lab (lab/), which
 * takes the hash from it: no hash stage before it, no record in the frame.
 * VNET_WAY says how it is handed over.
 */
#ifndef VNETHASH_LAB_STAGE_H
#define VNETHASH_LAB_STAGE_H

#if VNET_WAY == VNET_WAY_PROGTYPE
#define VNET_STEERING_SECTION "vnet_hash"
#else
#define VNET_STEERING_SECTION "socket"
#endif

#if VNET_WAY == VNET_WAY_KFUNC
extern int bpf_tun_set_hash(struct __sk_buff *skb, __u32 value, __u16 report) SEC(".ksyms");

static __always_inline int vnet_hand_over(struct __sk_buff *skb, const struct vnet_verdict *verdict)
{
	if (verdict->reporting == VNET_REPORTING_RECORD)
		bpf_tun_set_hash(skb, verdict->hash_value, verdict->hash_report);
	return verdict->queue;
}
#elif VNET_WAY == VNET_WAY_CB
static __always_inline int vnet_hand_over(struct __sk_buff *skb, const struct vnet_verdict *verdict)
{
	if (verdict->reporting == VNET_REPORTING_RECORD) {
		skb->cb[0] = verdict->hash_value;
		skb->cb[1] = verdict->hash_report;
	}
	return verdict->queue;
}
#elif VNET_WAY == VNET_WAY_PROGTYPE
/* The context of BPF_PROG_TYPE_VNET_HASH: struct __sk_buff and three fields more. */
struct vnet_hash_ctx {
	struct __sk_buff skb;
	__u32 vnet_hash_value;
	__u16 vnet_hash_report;
	__u16 vnet_rss_queue;
};

_Static_assert(sizeof(struct __sk_buff) == 192, "struct __sk_buff of Linux 6.12");

static __always_inline int vnet_hand_over(struct __sk_buff *skb, const struct vnet_verdict *verdict)
{
	volatile struct vnet_hash_ctx *ctx = (void *)skb; /* or two stores become one */

	ctx->vnet_rss_queue = verdict->queue;
	if (verdict->reporting == VNET_REPORTING_RECORD) {
		ctx->vnet_hash_value = verdict->hash_value;
		ctx->vnet_hash_report = verdict->hash_report;
	}
	return 0;
}
#else
#error "VNET_WAY is none of bpf.h"
#endif

SEC(VNET_STEERING_SECTION)
int steering_stage(struct __sk_buff *skb)
{
	struct vnet_verdict verdict;

	vnet_decide(skb, &verdict);
	return vnet_hand_over(skb, &verdict);
}

#endif
