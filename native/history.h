/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* The configurations that a packet read now may have been steered by. */
#ifndef VNETHASH_HISTORY_H
#define VNETHASH_HISTORY_H

#include <pthread.h>
#include <time.h>

#include "core.h"
#include "tunnel.h"

enum {
	HISTORY = 64,         /* configurations a reader tries */
	HISTORY_SECONDS = 10, /* one stays known after it went out of force */
};

/* Whoever drains a queue holds the lock for reading. */
struct vh_history {
	pthread_rwlock_t lock;
	const struct vh_config *config[HISTORY]; /* newest first */
	time_t retired[HISTORY];                 /* when it went out of force */
	int reports;                             /* one of them asks for hashes */
	__u32 tunnels;                           /* what one of them looks into, enum vnet_tunnel */
	time_t records_until;                    /* when the last record may be met */
};

/* Whether a record may be met. Where none can be, a frame that looks like one is a frame. */
int history_has_records(const struct vh_history *history);

/*
 * Hash a frame that arrived without a hash, if asked to at all. Returns
 * whether. Of the frame only what vnet_dissect() looks at is read.
 */
int history_rehash(const struct vh_history *history, __u16 queue, const struct vnet_frame *frame,
		   struct vnet_hdr *header);

#endif
