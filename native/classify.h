/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* What a configuration makes of the headers of a frame. */
#ifndef VNETHASH_CLASSIFY_H
#define VNETHASH_CLASSIFY_H

#include "core.h"
#include "tunnel.h"

void decide(const struct vh_config *config, const struct vnet_headers *headers,
	    struct vh_verdict *verdict);

#endif
