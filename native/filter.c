// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
#include <string.h>

#include "dissect.h"
#include "filter.h"

static int is_in(const __u64 *table, __u32 count, __u64 address)
{
	for (__u32 i = 0; i < count; i++) {
		if (table[i] == address)
			return 1;
	}
	return 0;
}

int filter_accepts(const struct vh_filter *filter, const __u8 *frame, __u32 length)
{
	__u64 address = 0;
	__u16 vlan;

	if (filter->promiscuous)
		return 1;
	if (length < 14)
		return 0;
	if (filter->checks_vlans && length >= 18 && vnet_be16(frame + 12) == VNET_TAG) {
		vlan = vnet_be16(frame + 14) & 0xfff;
		/* 0 is no VLAN: the tag has a priority only */
		if (vlan && !(filter->vlans[vlan / 64] >> vlan % 64 & 1))
			return 0;
	}
	memcpy(&address, frame, 6);
	if (address == 0xffffffffffff)
		return !filter->no_broadcast;
	if (frame[0] & 1)
		return !filter->no_multicast &&
		       (filter->all_multicast ||
			is_in(filter->multicast, filter->multicasts, address));
	return !filter->no_unicast &&
	       (filter->all_unicast || address == filter->mac ||
		is_in(filter->unicast, filter->unicasts, address));
}
