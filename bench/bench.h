/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/*
 * What the benchmarks run in C: the loops that bulk hashing is measured
 * against (scalar.c), and reading captures (capture.c), a sender that costs
 * little (traffic.c), TCP between two taps (tcp.c), and both sides of what the
 * data path for guests is measured against: a bare loop on a tap, and a driver
 * (vhost.c). The build hook feeds this file, without its preprocessor lines, to
 * cffi.
 */
#ifndef VNETHASH_BENCH_H
#define VNETHASH_BENCH_H

#include <stddef.h>
#include <stdint.h>

#pragma GCC visibility push(default)

int scalar_hash(const uint8_t *key, const uint8_t *tuples, size_t count, size_t length,
		uint32_t *hashes);
int copy_xor(const uint8_t *tuples, size_t count, size_t length, uint8_t *copy, uint32_t *sums);

int64_t capture_loop(const char *path, uint32_t *sum);

int send_burst(const int *fds, uint32_t fd_count, const uint8_t *messages, uint32_t message_count,
	       size_t length, uint32_t burst);

enum bare_order {
	BARE_STOP,
	BARE_READ,  /* read what is in the tap's queue */
	BARE_WRITE, /* write the messages in turn */
	BARE_ECHO,  /* read one when it comes, write to `call`, await a kick, write a message */
};

/* A loop that waits for a kick and does as ordered, in a thread of its own. */
struct bare {
	int tap;
	int kick; /* eventfds */
	int call;
	uint32_t order;
	uint32_t count; /* packets of the order */
	uint32_t batch; /* they are told so many at a time */
	uint32_t done;  /* told so far */
	int error;      /* why it ended, a negative errno */
	uint64_t bytes; /* of them */
	uint8_t *memory; /* to read to: `places`, in turn, `room` bytes each */
	uint32_t places;
	uint32_t room;
	const uint8_t *messages;
	uint32_t message_count;
	uint32_t length; /* of a message */
};

/* Until BARE_STOP, or an error. */
void bare_loop(struct bare *bare);

/*
 * A virtqueue as its driver has it, with VIRTIO_F_EVENT_IDX. Its chains are
 * made once: chain n begins at descriptor n * `chain`. All are at home between
 * bursts.
 */
struct driver_ring {
	void *table;
	void *available;
	void *used;
	const void *chains; /* what the table holds, our own copy */
	uint8_t *memory;    /* guest memory from the guest address `start` on */
	uint64_t start;
	uint32_t size;
	uint32_t chain;     /* descriptors of one */
	uint32_t header;    /* bytes in front of a received frame; 0: it transmits */
	uint16_t next;      /* available index */
	uint16_t seen;      /* used index */
	int kick;
};

/* What a burst brought, and when. */
struct burst {
	uint64_t packets;
	uint64_t bytes;  /* of used buffers */
	uint64_t hashed; /* packets with a hash */
	uint64_t kicks;
	uint64_t first;  /* packets that were there when the time began, the lead */
	uint64_t nanoseconds;
};

/*
 * Lend chains to each ring, `chains` in all, the same ones again as they come
 * back, until all are back. The time begins when `lead` packets have come.
 * Returns 0 or a negative errno.
 */
int driver_burst(struct driver_ring *rings, uint32_t count, uint32_t chains, uint32_t lead,
		 struct burst *burst);

/* Give the order and watch until it is done. */
int bare_burst(struct bare *bare, uint32_t order, uint32_t count, uint32_t lead,
	       struct burst *burst);

/*
 * Send a frame into the tap by the packet socket `wire`, hear of it by `call`,
 * send one back, by the rings or, where these are NULL, by a kick; receive it.
 * `count` times; how long each took. Chains have one descriptor. Returns 0 or
 * a negative errno.
 */
int ping(int wire, const uint8_t *frame, uint32_t length, int call, int kick,
	 struct driver_ring *receive, struct driver_ring *transmit, uint32_t count,
	 uint64_t *nanoseconds);

struct tcp_connection {
	int sender;
	int receiver;
	uint64_t sent;
	uint64_t received;
};

/* TCP from a stack with a tap of several queues to one with another tap. */
struct tcp {
	struct tcp_connection *connection;
	uint32_t connections;
	uint32_t queues;
	const void *const *readers; /* a struct vh_reader for each queue */
	void *receive;  /* vh_receive() */
	int here;       /* the tap they read, to write to */
	int there;      /* the other tap, with a header of 12 bytes */
	const uint8_t *data; /* what is sent, `size` bytes; repeats itself after `pattern` */
	uint8_t *room;       /* as much, to receive to */
	uint64_t size;
	uint64_t pattern;
	uint32_t verify; /* what arrives must be what was sent: EBADMSG */
	uint32_t packets_size;
	void *packets;   /* struct vh_packet, packets_size of them */
	uint8_t *arena;
	uint64_t arena_size;
	uint64_t bytes;       /* received so far */
	uint64_t carried;     /* packets so far, acknowledgements not counted */
	uint64_t nanoseconds; /* of the last pump, `idle` not counted */
	uint64_t idle;
};

/* Once over all, and until `bytes` more have been received. Returns 0 or a negative errno. */
int tcp_pump(struct tcp *tcp, uint64_t bytes);

#pragma GCC visibility pop

#endif
