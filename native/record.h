/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0 */
/* The hash record: put in front of a frame, or a reason why not. */
#ifndef VNETHASH_RECORD_H
#define VNETHASH_RECORD_H

#include "steer.h"

static __always_inline void vnet_store_record(struct __sk_buff *skb, const struct vnet_verdict *verdict)
{
	__u8 *data = (void *)(long)skb->data;

	if (data + VNET_RECORD_LEN > (__u8 *)(long)skb->data_end)
		return; /* cannot be: change_head() has just made this room */
	*(struct vnet_record *)data = (struct vnet_record){
		.hash_value = verdict->hash_value,
		.hash_report = verdict->hash_report,
		.mark = { VNET_MARK_0, VNET_MARK_1 },
	};
}

static __always_inline int vnet_refused(long error)
{
	return error == -22 /* EINVAL */ ? VNET_UNMARKED_TOO_LARGE : VNET_UNMARKED_NO_ROOM;
}

static __always_inline void vnet_restore_tags(struct __sk_buff *skb, const __u16 protocol[2],
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
 * vnet_prepend() does.
 */
static __always_inline int vnet_make_room_tagged(struct __sk_buff *skb)
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
			vnet_restore_tags(skb, protocol, tci, error ? 1 : 2);
			return VNET_UNMARKED_VLAN;
		}
	}
	room = VNET_RECORD_LEN + 4 * tags;
	error = bpf_skb_change_head(skb, room, 0);
	if (error) {
		vnet_restore_tags(skb, protocol, tci, tags);
		return vnet_refused(error);
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

/* Whether a packet with segmentation left to do is UDP, or might be. */
static __always_inline int vnet_may_be_udp(struct __sk_buff *skb)
{
	int is_ipv4 = skb->protocol == __builtin_bswap16(VNET_IPV4);
	__u8 protocol = 17;

	bpf_skb_load_bytes_relative(skb, is_ipv4 ? 9 : 6, &protocol, 1, BPF_HDR_START_NET);
	return protocol == 17 || (!is_ipv4 && vnet_is_extension(protocol));
}

/* Put the hash record in front. Returns why not (enum vnet_unmarked), or -1. */
static __always_inline int vnet_prepend(struct __sk_buff *skb, const struct vnet_verdict *verdict)
{
	int reason = -1;
	long error;

	/*
	 * Software segmentation checks that the checksum starts where the UDP
	 * header does, and drops what has a record in front.
	 */
	if (skb->gso_size && !vnet_state.record_udp_gso && vnet_may_be_udp(skb))
		return VNET_UNMARKED_UDP_GSO;
	if (skb->vlan_present) {
		reason = vnet_make_room_tagged(skb);
	} else {
		error = bpf_skb_change_head(skb, VNET_RECORD_LEN, 0);
		if (error)
			reason = vnet_refused(error);
	}
	if (reason < 0)
		vnet_store_record(skb, verdict);
	return reason;
}

#endif
