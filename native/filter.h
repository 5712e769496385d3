/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
#ifndef VNETHASH_FILTER_H
#define VNETHASH_FILTER_H

#include "vhost.h"

enum {
	FILTER_BYTES = 18, /* of a frame that are looked at: addresses and a VLAN tag */
};

/* Whether the guest wants the frame, of which min(length, FILTER_BYTES) bytes are at `frame`. */
int filter_accepts(const struct vh_filter *filter, const __u8 *frame, __u32 length);

#endif
