/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/*
 * TCP between two stacks, with a tap of each: what one sends is read from the
 * queues of its tap and written to the other's, and acknowledgements the other
 * way. All by one thread that never waits, so that its time is the cost.
 */
#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include "../native/core.h"
#include "bench.h"

enum {
	HEADER = 12,         /* of virtio-net */
	LARGEST = 68 << 10,
	TIMEOUT = 2000000000, /* ns without a byte */
};

static uint64_t now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec * 1000000000ull + time.tv_nsec;
}

/* Sockets and taps have nothing, or take nothing now: 0. Or a negative errno. */
static ssize_t moved(ssize_t bytes)
{
	if (bytes >= 0)
		return bytes;
	return errno == EAGAIN || errno == EINTR ? 0 : -errno;
}

static ssize_t send_some(const struct tcp *tcp, struct tcp_connection *connection)
{
	size_t at = connection->sent % tcp->pattern;
	ssize_t bytes = moved(send(connection->sender, tcp->data + at, tcp->size - at,
				   MSG_DONTWAIT | MSG_NOSIGNAL));

	if (bytes > 0)
		connection->sent += bytes;
	return bytes;
}

static ssize_t receive_some(struct tcp *tcp, struct tcp_connection *connection)
{
	size_t at = connection->received % tcp->pattern;
	ssize_t bytes = moved(recv(connection->receiver, tcp->room, tcp->size - at, MSG_DONTWAIT));

	if (bytes <= 0)
		return bytes;
	if (tcp->verify && memcmp(tcp->room, tcp->data + at, bytes))
		return -EBADMSG;
	connection->received += bytes;
	tcp->bytes += bytes;
	return bytes;
}

/* What lies in a queue of the tap to the other side. */
static ssize_t carry(struct tcp *tcp, const void *reader)
{
	int (*receive)(const void *reader, uint8_t *arena, uint64_t size, void *packets,
		       uint32_t most) = tcp->receive;
	struct vh_packet *packets = tcp->packets;
	int count = receive(reader, tcp->arena, tcp->arena_size, packets, tcp->packets_size);

	for (int i = 0; i < count; i++) {
		struct iovec parts[] = {
			{ &packets[i].header, HEADER },
			{ tcp->arena + packets[i].offset, packets[i].length },
		};

		if (writev(tcp->there, parts, 2) < 0)
			return -errno;
	}
	if (count > 0)
		tcp->carried += count;
	return count;
}

static ssize_t carry_back(struct tcp *tcp)
{
	ssize_t bytes = moved(read(tcp->there, tcp->arena, LARGEST));

	if (bytes > 0 && write(tcp->here, tcp->arena, bytes) < 0)
		return -errno;
	return bytes;
}

int tcp_pump(struct tcp *tcp, uint64_t bytes)
{
	uint64_t start = now(), last = start, goal = tcp->bytes + bytes, passed;
	ssize_t some;

	tcp->idle = 0;
	do {
		uint64_t progress = 0;

		for (uint32_t i = 0; i < tcp->connections; i++) {
			if ((some = send_some(tcp, &tcp->connection[i])) < 0)
				return some;
			progress += some;
		}
		for (uint32_t i = 0; i < tcp->queues; i++) {
			do {
				if ((some = carry(tcp, tcp->readers[i])) < 0)
					return some;
				progress += some;
			} while (some);
		}
		for (uint32_t i = 0; i < tcp->connections; i++) {
			do {
				if ((some = receive_some(tcp, &tcp->connection[i])) < 0)
					return some;
				progress += some;
			} while (some);
		}
		do {
			if ((some = carry_back(tcp)) < 0)
				return some;
			progress += some;
		} while (some);
		passed = now();
		if (!progress) { /* a timer of TCP has to fire first */
			tcp->idle += passed - last;
			if (tcp->idle > TIMEOUT)
				return -ETIMEDOUT;
		}
		last = passed;
	} while (tcp->bytes < goal);
	tcp->nanoseconds = last - start - tcp->idle;
	return 0;
}
