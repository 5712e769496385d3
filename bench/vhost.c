/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/*
 * What the data path of a guest is measured with: a loop on the same tap that
 * does nothing but read() or write(), and a driver that does to its rings what
 * a guest's does: it writes descriptors, looks at headers, kicks when asked to.
 */
#include <errno.h>
#include <linux/virtio_ring.h>
#include <poll.h>
#include <sched.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "bench.h"

enum {
	SPINS = 10000,       /* looks in vain before others may run */
	PATIENCE = 2000,     /* ms */
	NUM_BUFFERS = 10,    /* offsets in the header; virtio 1.3, 5.1.6 */
	HASH_REPORT = 16,
	HASH_HEADER = 20,
};

static uint64_t now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec * 1000000000ull + time.tv_nsec;
}

/* Looks in vain: whether there have been too many. */
static int is_tired(uint32_t *spins, uint64_t *deadline)
{
	if (++*spins % SPINS)
		return 0;
	sched_yield();
	if (!*deadline)
		*deadline = now() + PATIENCE * 1000000ull;
	return now() > *deadline;
}

static int wait_readable(int fd)
{
	struct pollfd poller = { .fd = fd, .events = POLLIN };
	int ready;

	do
		ready = poll(&poller, 1, PATIENCE);
	while (ready < 0 && errno == EINTR);
	return ready < 0 ? -errno : ready ? 0 : -ETIMEDOUT;
}

static int take_event(int fd)
{
	eventfd_t events;
	int error = wait_readable(fd);

	return error ? error : eventfd_read(fd, &events) < 0 ? -errno : 0;
}

/* What is there now was seen at `time`; the first that is a lead begins the time. */
static void count_time(struct burst *burst, uint64_t time, uint32_t lead, uint64_t *start)
{
	if (burst->first) {
		burst->nanoseconds = time - *start;
	} else if (burst->packets >= lead) {
		burst->first = burst->packets;
		*start = time;
	}
}

/* A burst that was there all at once took the time since the kick. */
static void settle(struct burst *burst, uint64_t kicked, uint64_t start)
{
	if (burst->first < burst->packets)
		return;
	burst->first = 0;
	burst->nanoseconds = start - kicked;
}

/* The bare loop */

static int bare_transfer(struct bare *bare)
{
	uint32_t message = 0, place = 0;

	for (uint32_t i = 1; i <= bare->count; i++) {
		ssize_t length;

		if (bare->order == BARE_READ) {
			length = read(bare->tap, bare->memory + (size_t)place * bare->room,
				      bare->room);
			place = place + 1 == bare->places ? 0 : place + 1;
		} else {
			length = write(bare->tap, bare->messages + (size_t)message * bare->length,
				       bare->length);
			message = message + 1 == bare->message_count ? 0 : message + 1;
		}
		if (length < 0)
			return -errno;
		bare->bytes += length;
		if (i % bare->batch == 0 || i == bare->count)
			__atomic_store_n(&bare->done, i, __ATOMIC_RELEASE);
	}
	return 0;
}

static int bare_echo(struct bare *bare)
{
	uint8_t buffer[2048];
	int error;

	for (uint32_t i = 0; i < bare->count; i++) {
		error = wait_readable(bare->tap);
		if (error)
			return error;
		if (read(bare->tap, buffer, sizeof(buffer)) < 0 || eventfd_write(bare->call, 1) < 0)
			return -errno;
		error = take_event(bare->kick);
		if (error)
			return error;
		if (write(bare->tap, bare->messages, bare->length) < 0)
			return -errno;
	}
	return 0;
}

void bare_loop(struct bare *bare)
{
	int error = 0;

	while (!error) {
		eventfd_t kicks;

		if (eventfd_read(bare->kick, &kicks) < 0)
			error = -errno;
		else if (bare->order == BARE_STOP)
			break;
		else
			error = bare->order == BARE_ECHO ? bare_echo(bare) : bare_transfer(bare);
	}
	__atomic_store_n(&bare->error, error, __ATOMIC_RELAXED);
}

int bare_burst(struct bare *bare, uint32_t order, uint32_t count, uint32_t lead,
	       struct burst *burst)
{
	uint64_t kicked = now(), start = kicked, deadline = 0;
	uint32_t spins = 0;

	*burst = (struct burst){ .kicks = 1 };
	bare->order = order;
	bare->count = count;
	bare->bytes = 0;
	bare->done = 0;
	if (eventfd_write(bare->kick, 1) < 0)
		return -errno;
	while (burst->packets < count) {
		uint32_t done = __atomic_load_n(&bare->done, __ATOMIC_ACQUIRE);
		int error;

		if (done != burst->packets) {
			burst->packets = done;
			count_time(burst, now(), lead, &start);
			continue;
		}
		error = __atomic_load_n(&bare->error, __ATOMIC_RELAXED);
		if (error || is_tired(&spins, &deadline))
			return error ? error : -ETIMEDOUT;
	}
	burst->bytes = bare->bytes;
	settle(burst, kicked, start);
	return 0;
}

/* The driver */

static void lend(struct driver_ring *ring, uint32_t head)
{
	struct vring_desc *table = ring->table;
	const struct vring_desc *chains = ring->chains;
	struct vring_avail *available = ring->available;

	memcpy(table + head, chains + head, ring->chain * sizeof(*table));
	available->ring[ring->next++ & (ring->size - 1)] = head;
}

/* Let the device see what was lent. Returns whether it wanted a kick, or a negative errno. */
static int publish(struct driver_ring *ring)
{
	struct vring_avail *available = ring->available;
	struct vring_used *used = ring->used;
	uint16_t old = available->idx;

	__atomic_store_n(&available->idx, ring->next, __ATOMIC_RELEASE);
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	if (!vring_need_event(__atomic_load_n((uint16_t *)&used->ring[ring->size], __ATOMIC_RELAXED),
			      ring->next, old))
		return 0;
	return eventfd_write(ring->kick, 1) < 0 ? -errno : 1;
}

/* Ask for a call at the used index `at`. */
static void want_call(struct driver_ring *ring, uint16_t at)
{
	struct vring_avail *available = ring->available;

	__atomic_store_n(&available->ring[ring->size], at, __ATOMIC_RELAXED);
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
}

static uint16_t used_index(const struct driver_ring *ring)
{
	return __atomic_load_n(&((struct vring_used *)ring->used)->idx, __ATOMIC_ACQUIRE);
}

/* Take the next used chain. Returns its head, or a negative errno for none of ours. */
static int64_t take(struct driver_ring *ring, uint32_t *length)
{
	const struct vring_used *used = ring->used;
	const struct vring_used_elem *element = &used->ring[ring->seen++ & (ring->size - 1)];

	*length = element->len;
	if (element->id >= ring->size || element->id % ring->chain)
		return -EPROTO;
	return element->id;
}

/*
 * Count what came in a chain. `*missing` are chains of a packet that began
 * earlier.
 */
static void count_chain(const struct driver_ring *ring, uint32_t head, uint32_t length,
			uint32_t *missing, struct burst *burst)
{
	const struct vring_desc *chains = ring->chains;
	uint16_t field;

	burst->bytes += length;
	if (ring->header && !*missing) {
		const uint8_t *header = ring->memory + (chains[head].addr - ring->start);

		memcpy(&field, header + NUM_BUFFERS, sizeof(field));
		*missing = field;
		if (ring->header == HASH_HEADER) {
			memcpy(&field, header + HASH_REPORT, sizeof(field));
			burst->hashed += field != 0;
		}
	}
	if (*missing)
		--*missing;
	burst->packets += !*missing;
}

enum { RINGS = 16 };

int driver_burst(struct driver_ring *rings, uint32_t count, uint32_t chains, uint32_t lead,
		 struct burst *burst)
{
	uint32_t missing[RINGS] = {}, lent[RINGS] = {};
	uint64_t begun = now(), start = begun, deadline = 0;
	uint32_t spins = 0, back = 0;

	*burst = (struct burst){};
	if (count > RINGS)
		return -EINVAL;
	for (uint32_t i = 0; i < count; i++) {
		want_call(&rings[i], rings[i].seen - 0x8000); /* none: it is watched */
		while (lent[i] < chains && (lent[i] + 1) * rings[i].chain <= rings[i].size)
			lend(&rings[i], lent[i]++ * rings[i].chain);
	}
	for (uint32_t i = 0; i < count; i++) {
		int kicked = publish(&rings[i]);

		if (kicked < 0)
			return kicked;
		burst->kicks += kicked;
	}
	for (uint32_t i = 0; back < count * chains; i = i + 1 == count ? 0 : i + 1) {
		struct driver_ring *ring = &rings[i];
		uint16_t until = used_index(ring);
		uint64_t seen;
		int kicked;

		if (until == ring->seen) {
			if (is_tired(&spins, &deadline))
				return -ETIMEDOUT;
			continue;
		}
		seen = now();
		while (ring->seen != until) {
			uint32_t length;
			int64_t head = take(ring, &length);

			if (head < 0)
				return head;
			count_chain(ring, head, length, &missing[i], burst);
			back++;
			if (lent[i] < chains) {
				lend(ring, head);
				lent[i]++;
			}
		}
		want_call(ring, ring->seen - 0x8000);
		kicked = publish(ring);
		if (kicked < 0)
			return kicked;
		burst->kicks += kicked;
		count_time(burst, seen, lead, &start);
	}
	settle(burst, begun, start);
	return 0;
}

/* There and back */

/* Take the one packet that came, and lend its chain again. */
static int take_one(struct driver_ring *ring)
{
	uint32_t length;
	int64_t head;
	int kicked;

	if (used_index(ring) != (uint16_t)(ring->seen + 1))
		return -EPROTO;
	head = take(ring, &length);
	if (head < 0)
		return head;
	want_call(ring, ring->seen);
	lend(ring, head);
	kicked = publish(ring);
	return kicked < 0 ? kicked : 0;
}

static int send_one(struct driver_ring *ring)
{
	uint32_t length;
	int kicked;

	/* The one before has been seen on the wire, but may not be back yet. */
	while (ring->seen != used_index(ring))
		take(ring, &length);
	want_call(ring, ring->seen - 0x8000);
	if ((uint16_t)(ring->next - ring->seen) == ring->size)
		return -EPROTO;
	lend(ring, ring->next & (ring->size - 1));
	kicked = publish(ring);
	return kicked < 0 ? kicked : 0;
}

int ping(int wire, const uint8_t *frame, uint32_t length, int call, int kick,
	 struct driver_ring *receive, struct driver_ring *transmit, uint32_t count,
	 uint64_t *nanoseconds)
{
	uint8_t buffer[2048];
	int error;

	if (receive) {
		want_call(receive, receive->seen);
		for (uint32_t i = 0; (i + 1) * receive->chain <= receive->size; i++)
			lend(receive, i * receive->chain);
		error = publish(receive);
		if (error < 0)
			return error;
	}
	for (uint32_t i = 0; i < count; i++) {
		uint64_t start = now();

		if (send(wire, frame, length, 0) < 0)
			return -errno;
		error = take_event(call);
		if (!error && receive)
			error = take_one(receive);
		if (!error)
			error = transmit ? send_one(transmit) : eventfd_write(kick, 1);
		if (!error)
			error = wait_readable(wire);
		if (error)
			return error;
		if (recv(wire, buffer, sizeof(buffer), 0) != (ssize_t)length)
			return -EPROTO;
		nanoseconds[i] = now() - start;
	}
	return 0;
}
