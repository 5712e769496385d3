/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/*
 * One pair of queues and the thread that serves it. What the thread changes
 * is its own until it has been joined; only the counters are read meanwhile.
 */
#ifndef VNETHASH_PAIR_H
#define VNETHASH_PAIR_H

#include <pthread.h>

#include "filter.h"
#include "history.h"
#include "ring.h"
#include "tap_read.h"
#include "window.h"

enum {
	BATCH = 64,                   /* packets of one direction before it is the other's turn */
	BATCH_BYTES = 128 << 10,      /* of frames, likewise: the guest is to have work meanwhile */
	DIRECT = 4096,                /* bytes of a packet above which copying costs more */
	PATIENCE = 1000,              /* ms for the guest to bring buffers for a packet in hand */
	HEADROOM = VNET_HDR_HASH_LEN, /* bytes in front of a frame for the guest's header */
};

/* A packet that was not delivered yet, in memory of ours. */
struct in_hand {
	struct vnet_hdr header;
	__u8 *frame;
	__u32 length;   /* of the frame; 0: there is none */
	__u64 deadline; /* ms, when it is dropped; 0: it has not waited */
	__u8 bytes[HEADROOM + LARGEST];
};

struct vh_pair {
	__u16 queue;
	__u8 running;
	__u8 is_polled;  /* a ring has no eventfd for kicks */
	__u8 is_filtered;
	__u8 blocked;    /* the tap takes nothing for now */
	__u8 starved;    /* the guest has no buffers for what is to be received */
	__u8 locked;     /* the history, for reading */
	__u32 stopping;
	__u32 expected;  /* bytes of the next frame to come from the tap */
	int stop_fd;
	int fault_fd;
	int wake_fd;     /* epoll: kicks and stop_fd */
	pthread_t thread;
	struct vh_history *history;
	struct vh_memory *memory;
	struct vh_path path;
	struct vh_filter filter;
	struct ring *at_work;
	struct ring receive; /* size 0: not started */
	struct ring transmit;
	struct vh_fault fault;
	struct vh_pair_counters counters;
	struct window window;
	struct in_hand in_hand;
	struct iovec spans[VH_CHAIN_MAX + 2]; /* of one system call */
	__u8 spill[LARGEST];                  /* received: what the buffers had no room for */
	__u8 sent[VNET_HDR_HASH_LEN + DIRECT];
};

/* For one writer; others may read meanwhile. */
#define COUNT(counter, number) \
	__atomic_store_n(&(counter), (counter) + (number), __ATOMIC_RELAXED)

/*
 * Carry packets, BATCH or BATCH_BYTES at most. Returns whether there may be more to carry at
 * once, -1 after a fault.
 */
int pair_receive(struct vh_pair *pair);
int pair_transmit(struct vh_pair *pair);

static inline void pair_unlock(struct vh_pair *pair)
{
	if (pair->locked) {
		pair->locked = 0;
		pthread_rwlock_unlock(&pair->history->lock);
	}
}

#endif
