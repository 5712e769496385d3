/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0) OR Apache-2.0 */
/*
 * A frame, and how its bytes are read: straight from the packet or by copy in
 * BPF, from memory in the native core. All reading of frames goes through
 * here, and never leaves the frame.
 */
#ifndef VNETHASH_FRAME_H
#define VNETHASH_FRAME_H

#include "vnethash.h"

#ifdef __bpf__
#include "bpf.h"
#define vnet_inline static __always_inline
#define VNET_KEEP_LOOP _Pragma("clang loop unroll(disable)")
#define vnet_forget() barrier()
#else
#include <stddef.h>
#include <string.h>
#define vnet_inline static inline __attribute__((always_inline))
#define VNET_KEEP_LOOP
#define vnet_forget()
#endif

#define vnet_likely(x) __builtin_expect(!!(x), 1)

enum vnet_scratch {
	VNET_SCRATCH = 40, /* the largest header read at once: IPv6 */
};

#ifdef __bpf__
struct vnet_frame {
	struct __sk_buff *skb;
	const __u8 *data;
	const __u8 *data_end; /* of the linear part */
	void *scratch;        /* VNET_SCRATCH bytes for what is not linear */
	__u32 length;
	__u32 is_l3;          /* no Ethernet header */
	__u32 generation;     /* of the configuration that decides about it */
	__u32 is_cut;         /* ends before the packet does, at `length` */
};

/*
 * By copy into the scratch space: good until the next call. Where the offset
 * depends on the packet this keeps the verifier's states alike, and what it
 * has to follow within what it is willing to.
 */
vnet_inline const __u8 *vnet_copy_at(const struct vnet_frame *frame, __u32 offset, __u32 length)
{
	/*
	 * Behind the cut the offset becomes one that no packet has. Not a branch:
	 * the verifier would follow both ways, for all that it knows of both numbers.
	 */
	if (frame->is_cut)
		offset |= (__s32)(frame->length - offset - length) >> 31;
	if (bpf_skb_load_bytes(frame->skb, offset, frame->scratch, length))
		return 0;
	return frame->scratch;
}

/* Straight from the packet where it is linear; good until the next call, as it may be a copy. */
vnet_inline const __u8 *vnet_at(const struct vnet_frame *frame, __u32 offset, __u32 length)
{
#ifndef VNET_COPIES_ONLY
	const __u8 *at = frame->data + offset;

	if (vnet_likely(!frame->is_cut && at + length <= frame->data_end))
		return at;
#endif
	return vnet_copy_at(frame, offset, length);
}

/* Which tunnels to look into, enum vnet_tunnel: steer.h has the configuration. */
static __always_inline __u32 vnet_tunnels(const struct vnet_frame *frame);

/* The frame up to `end`. It is read by copy alone: packet pointers are not handed on. */
vnet_inline struct vnet_frame vnet_cut(const struct vnet_frame *frame, __u32 end)
{
	return (struct vnet_frame){
		.skb = frame->skb,
		.scratch = frame->scratch,
		.length = end,
		.is_cut = 1,
	};
}

/* Whether the kernel keeps a VLAN tag beside the frame: the outer one. */
vnet_inline int vnet_has_tag_beside(const struct vnet_frame *frame)
{
	return !frame->is_cut && frame->skb->vlan_present;
}

/* All ones if the frame reaches to `offset`, otherwise 0; no branch, as above. */
vnet_inline __u32 vnet_reaches(const struct vnet_frame *frame, __u32 offset)
{
	return ~((__s32)(frame->length - offset) >> 31);
}

/* BPF loads bytes one by one unless told that a word is a word. */
#define vnet_u32(at) (*(const __u32 *)(at))
#define vnet_be16(at) __builtin_bswap16(*(const __u16 *)(at))

typedef __u64 vnet_pair __attribute__((may_alias));

#define vnet_aligned __attribute__((aligned(8)))

/* Two words at once. On the stack both must be where eight bytes may be. */
vnet_inline void vnet_copy_pair(__u32 to[2], const __u8 *from)
{
	*(vnet_pair *)to = *(const vnet_pair *)from;
}
#else
struct vnet_frame {
	const __u8 *data;
	__u32 length;
	__u32 is_l3;
	__u32 tunnels; /* to look into, enum vnet_tunnel */
	__u32 is_cut;
};

vnet_inline __u32 vnet_tunnels(const struct vnet_frame *frame)
{
	return frame->tunnels;
}

vnet_inline const __u8 *vnet_at(const struct vnet_frame *frame, __u32 offset, __u32 length)
{
	if (length > frame->length || offset > frame->length - length)
		return NULL;
	return frame->data + offset;
}

#define vnet_copy_at vnet_at

vnet_inline struct vnet_frame vnet_cut(const struct vnet_frame *frame, __u32 end)
{
	return (struct vnet_frame){
		.data = frame->data,
		.length = end,
		.is_cut = 1,
	};
}

vnet_inline int vnet_has_tag_beside(const struct vnet_frame *frame)
{
	(void)frame;
	return 0;
}

vnet_inline __u32 vnet_reaches(const struct vnet_frame *frame, __u32 offset)
{
	return offset <= frame->length ? ~0u : 0;
}

vnet_inline __u32 vnet_u32(const __u8 *at)
{
	__u32 word;

	memcpy(&word, at, sizeof(word));
	return word;
}

vnet_inline __u16 vnet_be16(const __u8 *at)
{
	return at[0] << 8 | at[1];
}

#define vnet_aligned

vnet_inline void vnet_copy_pair(__u32 to[2], const __u8 *from)
{
	memcpy(to, from, 8);
}

#endif
#endif
