/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0 */
/*
 * What a BPF program needs from its tool chain: sections, map definitions in
 * BTF, and by their numbers in <linux/bpf.h> the helpers that vnethash calls
 * and a hash program is likely to. libbpf's <bpf/bpf_helpers.h> has the rest:
 * include it first.
 */
#ifndef VNETHASH_BPF_H
#define VNETHASH_BPF_H

#include <linux/bpf.h>

/*
 * How a kernel of the lab takes the hash (lab_stage.h); on others VNET_WAY is
 * not defined. A socket filter reads a packet by helper calls alone.
 */
#define VNET_WAY_KFUNC 1
#define VNET_WAY_PROGTYPE 2
#define VNET_WAY_CB 3

#if defined(VNET_WAY) && VNET_WAY != VNET_WAY_PROGTYPE
#define VNET_COPIES_ONLY
#endif

#ifndef __BPF_HELPERS__ /* or libbpf's header has defined all these */
#define SEC(name) __attribute__((section(name), used))
#undef __always_inline /* <linux/stddef.h> only hints */
#define __always_inline inline __attribute__((always_inline))
#define __noinline __attribute__((noinline))

#define __uint(name, value) int(*name)[value]
#define __type(name, value) typeof(value) *name
#define barrier() asm volatile("" ::: "memory")

static void *(*const bpf_map_lookup_elem)(void *map, const void *key) =
	(void *)BPF_FUNC_map_lookup_elem;
static long (*const bpf_map_update_elem)(void *map, const void *key, const void *value,
					 __u64 flags) = (void *)BPF_FUNC_map_update_elem;
static long (*const bpf_map_delete_elem)(void *map, const void *key) =
	(void *)BPF_FUNC_map_delete_elem;
static __u64 (*const bpf_ktime_get_ns)(void) = (void *)BPF_FUNC_ktime_get_ns;
static __u32 (*const bpf_get_prandom_u32)(void) = (void *)BPF_FUNC_get_prandom_u32;
static __u32 (*const bpf_get_smp_processor_id)(void) = (void *)BPF_FUNC_get_smp_processor_id;
static long (*const bpf_skb_load_bytes)(const void *skb, __u32 offset, void *to, __u32 length) =
	(void *)BPF_FUNC_skb_load_bytes;
static long (*const bpf_skb_load_bytes_relative)(const void *skb, __u32 offset, void *to,
						 __u32 length, __u32 start) =
	(void *)BPF_FUNC_skb_load_bytes_relative;
static long (*const bpf_skb_store_bytes)(void *skb, __u32 offset, const void *from, __u32 length,
					 __u64 flags) = (void *)BPF_FUNC_skb_store_bytes;
static long (*const bpf_skb_change_head)(void *skb, __u32 length, __u64 flags) =
	(void *)BPF_FUNC_skb_change_head;
static long (*const bpf_skb_vlan_push)(void *skb, __u16 protocol, __u16 tci) =
	(void *)BPF_FUNC_skb_vlan_push;
static long (*const bpf_skb_vlan_pop)(void *skb) = (void *)BPF_FUNC_skb_vlan_pop;
#endif

#ifndef READ_ONCE
#define READ_ONCE(x) (*(const volatile typeof(x) *)&(x))
#endif
#define vnet_opaque(x) asm volatile("" : "+r"(x)::"memory")
/* What a pointer points to is in memory from here on, where the compiler knows it to be. */
#define vnet_in_memory(pointer) asm volatile("" ::"r"(pointer) : "memory")

#endif
