// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
/* The thread of a pair of queues: its turns and its sleep. */
#define _GNU_SOURCE
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "api.h"
#include "guard.h"
#include "pair.h"

enum {
	POLLED = 1,       /* ms between looks at a ring that brings no kicks */
	IMPATIENCE = 100, /* ms the thread gets to end, then a signal as often */
};

/* What a wakeup was for: data of the events of wake_fd. */
enum wake {
	WAKE_STOP,
	WAKE_RECEIVE,
	WAKE_TRANSMIT,
};

static void note_fault(struct vh_pair *pair, const struct ring *ring)
{
	pair->fault = ring->fault;
	ring_announce_fault(ring);
}

/*
 * Wait until there is something to do. Kicks are edges: they are never read,
 * for the front end has the eventfd too and could make us wait in the read.
 */
static void wait_for_work(struct vh_pair *pair)
{
	struct pollfd fds[] = {
		{ .fd = pair->wake_fd, .events = POLLIN },
		{ .fd = pair->starved ? -1 : pair->path.receive_fd, .events = POLLIN },
		{ .fd = pair->blocked ? pair->path.transmit_fd : -1, .events = POLLOUT },
	};
	int timeout = pair->is_polled ? POLLED : pair->in_hand.length ? PATIENCE : -1;
	struct epoll_event events[3];
	int count;

	poll(fds, 3, timeout);
	COUNT(pair->counters.wakeups, 1);
	if (!fds[0].revents)
		return;
	count = epoll_wait(pair->wake_fd, events, 3, 0);
	for (int i = 0; i < count; i++) {
		if (events[i].data.u32 == WAKE_RECEIVE)
			COUNT(pair->counters.receive.kicks, 1);
		else if (events[i].data.u32 == WAKE_TRANSMIT)
			COUNT(pair->counters.transmit.kicks, 1);
	}
}

/* Take turns until told to stop, or until a ring is broken. */
static void serve(struct vh_pair *pair)
{
	int receives = pair->receive.size && pair->path.receive_fd >= 0;
	int transmits = pair->transmit.size && pair->path.transmit_fd >= 0;

	while (!__atomic_load_n(&pair->stopping, __ATOMIC_RELAXED)) {
		int received = receives ? pair_receive(pair) : 0;
		int transmitted = received >= 0 && transmits ? pair_transmit(pair) : 0;

		if (received < 0)
			return note_fault(pair, &pair->receive);
		if (transmitted < 0)
			return note_fault(pair, &pair->transmit);
		if (received || transmitted)
			continue;
		if (receives && pair->starved && ring_want_kicks(&pair->receive))
			continue;
		if (transmits && !pair->blocked && ring_want_kicks(&pair->transmit))
			continue;
		wait_for_work(pair);
		if (receives)
			ring_no_kicks(&pair->receive);
		if (transmits)
			ring_no_kicks(&pair->transmit);
	}
}

static void mask_sigbus(int how)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGBUS);
	pthread_sigmask(how, &set, NULL);
}

/* To the end under guard: join() sends signals that are then harmless. */
static void *run(void *argument)
{
	struct vh_pair *pair = argument;
	sigjmp_buf out;

	if (GUARD(out)) {
		ring_fail(pair->at_work, VH_FAULT_MEMORY, 0);
		note_fault(pair, pair->at_work);
	} else {
		mask_sigbus(SIG_UNBLOCK);
		serve(pair);
	}
	mask_sigbus(SIG_BLOCK);
	pair_unlock(pair);
	if (pair->fault.reason)
		eventfd_write(pair->fault_fd, 1);
	return NULL;
}

API struct vh_pair *vh_pair_new(__u16 queue, struct vh_history *history)
{
	struct vh_pair *pair = calloc(1, sizeof(*pair));

	if (!pair)
		return NULL;
	pair->queue = queue;
	pair->history = history;
	pair->stop_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	pair->fault_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	if (pair->stop_fd < 0 || pair->fault_fd < 0) {
		vh_pair_free(pair);
		return NULL;
	}
	return pair;
}

API void vh_pair_free(struct vh_pair *pair)
{
	struct vh_bases bases;

	if (pair->running)
		vh_pair_stop(pair, &bases);
	if (pair->stop_fd >= 0)
		close(pair->stop_fd);
	if (pair->fault_fd >= 0)
		close(pair->fault_fd);
	free(pair);
}

/* Returns 0 or -errno. */
static int add_wake(struct vh_pair *pair, int fd, __u32 events, enum wake wake)
{
	struct epoll_event event = { .events = events, .data.u32 = wake };

	return epoll_ctl(pair->wake_fd, EPOLL_CTL_ADD, fd, &event) < 0 ? -errno : 0;
}

static int start_ring(struct vh_pair *pair, struct ring *ring, const struct vh_ring_setup *setup,
		      enum vh_fault_queue queue, enum wake wake)
{
	int error = 0;

	*ring = (struct ring){};
	if (!setup)
		return 0;
	if (ring_start(ring, pair->memory, setup, queue) < 0)
		return -1;
	if (setup->kick < 0)
		pair->is_polled = 1;
	else
		error = add_wake(pair, setup->kick, EPOLLIN | EPOLLET, wake);
	return error ? ring_fail(ring, VH_FAULT_SYSTEM, -error) : 0;
}

/* The thread takes no signals but those its own doing raises; SIGBUS when it is under guard. */
static int start_thread(struct vh_pair *pair)
{
	sigset_t blocked, before;
	int error;

	sigfillset(&blocked);
	sigdelset(&blocked, SIGSEGV);
	sigdelset(&blocked, SIGILL);
	sigdelset(&blocked, SIGFPE);
	pthread_sigmask(SIG_SETMASK, &blocked, &before);
	error = pthread_create(&pair->thread, NULL, run, pair);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	return -error;
}

API int vh_pair_start(struct vh_pair *pair, struct vh_memory *memory,
		      const struct vh_ring_setup *receive, const struct vh_ring_setup *transmit,
		      const struct vh_path *path, struct vh_fault *fault)
{
	int error = -EINVAL;

	*fault = (struct vh_fault){};
	if (pair->running)
		return -EBUSY;
	pair->path = *path;
	pair->is_filtered = path->filter != NULL;
	if (path->filter)
		pair->filter = *path->filter;
	pair->fault = (struct vh_fault){};
	window_reset(&pair->window, &pair->receive, path->mergeable);
	pair->is_polled = pair->starved = pair->blocked = 0;
	pair->stopping = 0;
	pair->memory = memory_get(memory);
	pair->wake_fd = epoll_create1(EPOLL_CLOEXEC);
	if (pair->wake_fd < 0) {
		error = -errno;
		goto failed;
	}
	if (start_ring(pair, &pair->receive, receive, VH_QUEUE_RECEIVE, WAKE_RECEIVE) < 0) {
		*fault = pair->receive.fault;
		goto failed;
	}
	if (start_ring(pair, &pair->transmit, transmit, VH_QUEUE_TRANSMIT, WAKE_TRANSMIT) < 0) {
		*fault = pair->transmit.fault;
		goto failed;
	}
	error = add_wake(pair, pair->stop_fd, EPOLLIN, WAKE_STOP);
	if (!error)
		error = guard_install();
	if (!error)
		error = start_thread(pair);
	if (error)
		goto failed;
	pair->running = 1;
	return 0;
failed:
	if (pair->wake_fd >= 0)
		close(pair->wake_fd);
	vh_memory_put(pair->memory);
	return error;
}

/*
 * The front end shares the files of its eventfds with us, so it may have made
 * them wait again and have filled them: then a signal ends the thread's write.
 */
static void join(struct vh_pair *pair)
{
	struct timespec until;
	int error;

	do {
		clock_gettime(CLOCK_MONOTONIC, &until);
		until.tv_sec += (until.tv_nsec + IMPATIENCE * 1000000) / 1000000000;
		until.tv_nsec = (until.tv_nsec + IMPATIENCE * 1000000) % 1000000000;
		error = pthread_clockjoin_np(pair->thread, NULL, CLOCK_MONOTONIC, &until);
		if (error == ETIMEDOUT)
			pthread_kill(pair->thread, SIGBUS);
	} while (error == ETIMEDOUT);
}

API void vh_pair_stop(struct vh_pair *pair, struct vh_bases *bases)
{
	eventfd_t events;

	__atomic_store_n(&pair->stopping, 1, __ATOMIC_RELAXED);
	eventfd_write(pair->stop_fd, 1);
	join(pair);
	eventfd_read(pair->stop_fd, &events);
	eventfd_read(pair->fault_fd, &events);
	close(pair->wake_fd);
	vh_memory_put(pair->memory);
	pair->running = 0;
	bases->receive = pair->receive.base;
	bases->transmit = pair->transmit.base;
}

API void vh_pair_forget(struct vh_pair *pair)
{
	pair->in_hand.length = 0;
}

API int vh_pair_event_fd(const struct vh_pair *pair)
{
	return pair->fault_fd;
}

API void vh_pair_fault(const struct vh_pair *pair, struct vh_fault *fault)
{
	struct pollfd ended = { .fd = pair->fault_fd, .events = POLLIN };

	/* While it runs the thread may be writing it; it is whole when it was announced. */
	*fault = (struct vh_fault){};
	if (!pair->running || poll(&ended, 1, 0) == 1)
		*fault = pair->fault;
}

API void vh_pair_counters(const struct vh_pair *pair, struct vh_pair_counters *counters)
{
	const __u64 *from = (const __u64 *)&pair->counters;
	__u64 *to = (__u64 *)counters;

	for (size_t i = 0; i < sizeof(*counters) / sizeof(*to); i++)
		to[i] = __atomic_load_n(&from[i], __ATOMIC_RELAXED);
}
