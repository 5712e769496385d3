// SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0
/* Receive-side scaling as the specification has it: the hash program that ships. */
#include "vnet_hash.h"

VNET_HASH_PROGRAM(frame, verdict)
{
	struct vnet_headers headers;

	vnet_dissect(frame, &headers);
	vnet_rss(&headers, verdict);
}
