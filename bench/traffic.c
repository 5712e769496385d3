/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/*
 * Sends traffic: to the queue of a tap, where a message is a virtio-net
 * header and a frame, or to connected sockets, where it is a payload. One
 * system call a packet, as VMMs and programs do.
 */
#include <errno.h>
#include <unistd.h>

#include "bench.h"

/*
 * Write `burst` messages, the descriptors and the messages each in turn;
 * messages lie one behind the other, `length` bytes each. Returns 0, or a
 * negative errno.
 */
int send_burst(const int *fds, uint32_t fd_count, const uint8_t *messages, uint32_t message_count,
	       size_t length, uint32_t burst)
{
	for (uint32_t i = 0; i < burst; i++) {
		const uint8_t *message = messages + i % message_count * length;
		ssize_t written;

		do
			written = write(fds[i % fd_count], message, length);
		while (written < 0 && errno == EINTR);
		if (written < 0)
			return -errno;
		if ((size_t)written != length)
			return -EMSGSIZE;
	}
	return 0;
}
