// SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0
/* The self test of the program type as it was proposed, against its context alone. */
#include <linux/bpf.h>

#define SEC(name) __attribute__((section(name), used))

/* Where the kernel headers here do not know the type: the end of its struct __sk_buff. */
struct context {
	struct __sk_buff skb;
	__u32 vnet_hash_value;
	__u16 vnet_hash_report;
	__u16 vnet_rss_queue;
};

SEC("vnet_hash")
int prog(volatile struct context *ctx)
{
	ctx->vnet_hash_value ^= 3;
	ctx->vnet_hash_report ^= 2;
	ctx->vnet_rss_queue ^= 1;
	return 0;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
