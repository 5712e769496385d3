/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0 */
/*
 * What a BPF program needs from its tool chain: sections, map definitions in
 * BTF, and the helpers vnethash calls, by their numbers in <linux/bpf.h>.
 */
#ifndef VNETHASH_BPF_H
#define VNETHASH_BPF_H

#include <linux/bpf.h>

#define SEC(name) __attribute__((section(name), used))
#undef __always_inline /* <linux/stddef.h> only hints */
#define __always_inline inline __attribute__((always_inline))
#define __noinline __attribute__((noinline))

#define __uint(name, value) int(*name)[value]
#define __type(name, value) typeof(value) *name

#define READ_ONCE(x) (*(const volatile typeof(x) *)&(x))
#define barrier() asm volatile("" ::: "memory")
#define opaque(x) asm volatile("" : "+r"(x)::"memory")

static void *(*const bpf_map_lookup_elem)(void *map, const void *key) =
	(void *)BPF_FUNC_map_lookup_elem;
static long (*const bpf_skb_load_bytes)(const void *skb, __u32 offset, void *to, __u32 length) =
	(void *)BPF_FUNC_skb_load_bytes;
static long (*const bpf_skb_store_bytes)(void *skb, __u32 offset, const void *from, __u32 length,
					 __u64 flags) = (void *)BPF_FUNC_skb_store_bytes;
static long (*const bpf_skb_change_head)(void *skb, __u32 length, __u64 flags) =
	(void *)BPF_FUNC_skb_change_head;
static long (*const bpf_skb_vlan_push)(void *skb, __u16 protocol, __u16 tci) =
	(void *)BPF_FUNC_skb_vlan_push;
static long (*const bpf_skb_vlan_pop)(void *skb) = (void *)BPF_FUNC_skb_vlan_pop;

#endif
