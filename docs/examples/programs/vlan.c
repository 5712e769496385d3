// SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0
/*
 * All packets of a VLAN on one queue: the outer tag's VLAN identifier, hashed
 * by the key and steered by the table. Untagged packets go by RSS.
 *
 * The hash is not reported: it tells VLANs apart, and whoever asks the device
 * for hashes wants flows. The specification has no type for it either.
 */
#include <vnet_hash.h>

enum {
	UNTAGGED = -1,
	VLAN_ID = 0x0fff, /* of the tag; above it are priority and drop eligibility */
};

/* A tag is beside the frame, where the kernel keeps it while it can, or in band. */
static __always_inline int vlan_of(const struct vnet_frame *frame)
{
	const __u8 *at;

	if (vnet_has_tag_beside(frame))
		return frame->skb->vlan_tci & VLAN_ID;
	if (frame->is_l3)
		return UNTAGGED;
	at = vnet_at(frame, 12, 4);
	if (!at || !vnet_is_tag(vnet_be16(at)))
		return UNTAGGED;
	return vnet_be16(at + 2) & VLAN_ID;
}

VNET_HASH_PROGRAM(frame, verdict)
{
	struct vnet_headers headers;
	int vlan = vlan_of(frame);
	__u32 word = vlan;

	if (vlan == UNTAGGED) {
		vnet_dissect(frame, &headers);
		vnet_rss(&headers, verdict);
		return;
	}
	vnet_toeplitz(&word, 1, verdict);
	verdict->hash_value = 0;
}
