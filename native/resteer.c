// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
/*
 * Steering in user space. Whoever reads a queue reads all of the tap's, keeps
 * what is for it and leaves the rest where the others find it. One lock: the
 * packets of a flow stay in order whoever reads them.
 */
#include <pthread.h>
#include <stdlib.h>
#include <sys/eventfd.h>

#include "api.h"
#include "history.h"
#include "tap_read.h"

enum {
	BACKLOG = 1024,  /* packets waiting for a queue, as many as a tap's ring holds */
	BATCH = 64,      /* packets a reader takes for others in one go */
	SMALL = 2 << 10, /* bytes kept for a packet within the usual MTU */
};

struct waiting {
	struct waiting *next; /* of the spare ones */
	__u64 room;
	struct vh_packet packet;
	__u8 frame[];
};

struct resteer_queue {
	struct waiting *backlog[BACKLOG];
	__u32 head, count;
	int event_fd;
	__u64 dropped;
	struct vnet_counters counters;
};

struct vh_resteer {
	pthread_mutex_t lock;
	struct vh_history *history;
	__u32 queues;
	int is_l3;
	int fds[VNET_QUEUES_MAX];
	struct waiting *spare; /* kept, or each large packet would cost page faults */
	__u32 spares;
	struct resteer_queue queue[];
};

API struct vh_resteer *vh_resteer_new(const int *fds, __u32 queues, int is_l3,
				      struct vh_history *history)
{
	struct vh_resteer *resteer;

	if (queues > VNET_QUEUES_MAX)
		return NULL;
	resteer = calloc(1, sizeof(*resteer) + queues * sizeof(resteer->queue[0]));
	if (!resteer)
		return NULL;
	pthread_mutex_init(&resteer->lock, NULL);
	resteer->history = history;
	resteer->is_l3 = is_l3;
	for (__u32 i = 0; i < queues; i++) {
		resteer->fds[i] = fds[i];
		resteer->queue[i].event_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
		resteer->queues = i + 1;
		if (resteer->queue[i].event_fd < 0) {
			vh_resteer_free(resteer);
			return NULL;
		}
	}
	return resteer;
}

API void vh_resteer_free(struct vh_resteer *resteer)
{
	for (__u32 i = 0; i < resteer->queues; i++) {
		struct resteer_queue *queue = &resteer->queue[i];

		for (; queue->count; queue->count--)
			free(queue->backlog[queue->head++ % BACKLOG]);
		if (queue->event_fd >= 0)
			close(queue->event_fd);
	}
	while (resteer->spare) {
		struct waiting *next = resteer->spare->next;

		free(resteer->spare);
		resteer->spare = next;
	}
	pthread_mutex_destroy(&resteer->lock);
	free(resteer);
}

API int vh_resteer_event_fd(const struct vh_resteer *resteer, __u32 queue)
{
	return resteer->queue[queue].event_fd;
}

static struct waiting *take_room(struct vh_resteer *resteer, __u64 length)
{
	struct waiting *waiting = resteer->spare;
	__u64 room = length < SMALL ? SMALL : LARGEST;

	if (waiting && waiting->room >= length) {
		resteer->spare = waiting->next;
		resteer->spares--;
		return waiting;
	}
	waiting = malloc(sizeof(*waiting) + room);
	if (waiting)
		waiting->room = room;
	return waiting;
}

static void give_room(struct vh_resteer *resteer, struct waiting *waiting)
{
	if (resteer->spares == BATCH) {
		free(waiting);
		return;
	}
	waiting->next = resteer->spare;
	resteer->spare = waiting;
	resteer->spares++;
}

/* Leave a packet for the reader of another queue; full means dropped, as in a tap. */
static void leave(struct vh_resteer *resteer, struct resteer_queue *queue,
		  const struct vh_packet *packet, const __u8 *frame)
{
	struct waiting *waiting = NULL;

	if (queue->count < BACKLOG)
		waiting = take_room(resteer, packet->length);
	if (!waiting) {
		queue->dropped++;
		return;
	}
	waiting->packet = *packet;
	memcpy(waiting->frame, frame, packet->length);
	queue->backlog[(queue->head + queue->count++) % BACKLOG] = waiting;
	if (queue->count == 1)
		eventfd_write(queue->event_fd, 1);
}

/* Take what another reader left. */
static void collect(struct vh_resteer *resteer, struct resteer_queue *queue, __u8 *arena,
		    struct vh_packet *packet)
{
	struct waiting *waiting = queue->backlog[queue->head++ % BACKLOG];
	eventfd_t events;

	*packet = waiting->packet;
	packet->offset = 0;
	memcpy(arena, waiting->frame, packet->length);
	give_room(resteer, waiting);
	if (--queue->count == 0)
		eventfd_read(queue->event_fd, &events);
}

/* Read one packet of the tap; returns its queue, -EAGAIN if there is none, or an error. */
static int read_and_steer(struct vh_resteer *resteer, int fd, __u8 *arena, __u64 size,
			  struct vh_packet *packet)
{
	const struct vh_config *config = resteer->history->config[0];
	ssize_t length = read_packet(fd, VNET_HDR_LEN, arena, size);
	struct vh_verdict verdict;
	struct resteer_queue *to;

	if (length <= 0)
		return length ? (int)length : -EAGAIN;
	take_packet(arena, length, 0, packet);
	vh_classify(config, arena + packet->offset, packet->length, resteer->is_l3, &verdict);
	packet->queue = verdict.queue % resteer->queues;
	if (config->rss.reporting != VNET_REPORTING_OFF) {
		packet->header.hash_value = verdict.hash_value;
		packet->header.hash_report = verdict.report;
	}
	to = &resteer->queue[packet->queue];
	to->counters.by_report[verdict.report].packets++;
	to->counters.by_report[verdict.report].bytes += packet->length;
	return packet->queue;
}

API int vh_resteer_receive(struct vh_resteer *resteer, __u32 index, __u8 *arena, __u64 size,
			   struct vh_packet *packets, __u32 max)
{
	struct resteer_queue *mine = &resteer->queue[index];
	__u32 n = 0, budget = max + BATCH; /* or others' packets could keep us here */
	__u64 used = 0;
	int queue = 0;

	pthread_mutex_lock(&resteer->lock);
	pthread_rwlock_rdlock(&resteer->history->lock);
	while (mine->count && n < max && size - used >= LARGEST) {
		collect(resteer, mine, arena + used, &packets[n]);
		packets[n].offset = used;
		used = (used + packets[n++].length + 63) & ~63ull;
	}
	for (__u32 i = 0; i < resteer->queues && resteer->history->config[0]; i++) {
		int fd = resteer->fds[(index + i) % resteer->queues];

		while (n < max && budget && size - used >= LARGEST) {
			struct vh_packet *packet = &packets[n];

			queue = read_and_steer(resteer, fd, arena + used, size - used, packet);
			if (queue < 0)
				break;
			budget--;
			packet->offset += used;
			if (queue != (int)index) {
				leave(resteer, &resteer->queue[queue], packet,
				      arena + packet->offset);
				continue;
			}
			used = (packet->offset + packet->length + 63) & ~63ull;
			n++;
		}
		if (queue < 0 && queue != -EAGAIN)
			break;
	}
	pthread_rwlock_unlock(&resteer->history->lock);
	pthread_mutex_unlock(&resteer->lock);
	return n || queue >= 0 || queue == -EAGAIN ? (int)n : queue;
}

API void vh_resteer_counters(struct vh_resteer *resteer, __u32 queue,
			     struct vnet_counters *counters, __u64 *dropped)
{
	pthread_mutex_lock(&resteer->lock);
	*counters = resteer->queue[queue].counters;
	*dropped = resteer->queue[queue].dropped;
	pthread_mutex_unlock(&resteer->lock);
}
