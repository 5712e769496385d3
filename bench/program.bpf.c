// SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0
/*
 * The work of vnethash's own hash stage as somebody else would write it, in
 * the steps that vnet_hash.h offers: what a hash program costs against it.
 */
#include "../native/vnet_hash.h"

VNET_HASH_PROGRAM(frame, verdict)
{
	struct vnet_l3 l3 = vnet_frame_l3(frame);
	struct vnet_headers headers;

	vnet_dissect_l3(frame, &headers, l3);
	if (headers.kind == VNET_REPORT_NONE) {
		vnet_unclassified(verdict);
		return;
	}
	vnet_rss(&headers, verdict);
}
