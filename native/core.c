// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "core.h"
#include "toeplitz.h"

#define API __attribute__((visibility("default")))

enum {
	HISTORY = 64,       /* configurations a reader tries */
	MEMORY = 10,        /* seconds one stays known after it went out of force */
	BACKLOG = 1024,     /* packets waiting for a queue, as many as a tap's ring holds */
	BATCH = 64,         /* packets a reader takes for others in one go */
	SMALL = 2 << 10,    /* bytes kept for a packet within the usual MTU */
	LARGEST = 68 << 10, /* bytes one read() of a tap may fill: a GSO packet and headers */
};

API void vh_layout(struct vh_layout *layout)
{
	*layout = (struct vh_layout){
		.record = sizeof(struct vnet_record),
		.hdr = sizeof(struct vnet_hdr),
		.config = sizeof(struct vnet_config),
		.config_toeplitz = offsetof(struct vnet_config, toeplitz),
		.state = sizeof(struct vnet_state),
		.state_config = offsetof(struct vnet_state, config),
		.counters = sizeof(struct vnet_counters),
		.verdict = sizeof(struct vh_verdict),
		.packet = sizeof(struct vh_packet),
		.packet_header = offsetof(struct vh_packet, header),
	};
}

/* The 32 bits of the key that start at `bit`. */
static __u32 key_window(const __u8 *key, __u32 bit)
{
	__u64 window = 0;

	for (__u32 i = 0; i < 5; i++)
		window = window << 8 | (bit / 8 + i < VNET_KEY_LEN ? key[bit / 8 + i] : 0);
	return window >> (8 - bit % 8);
}

API void vh_fill_tables(struct vnet_config *config)
{
	for (__u32 kind = 0; kind < VNET_REPORTS; kind++)
		config->rules[kind] = vnet_rule(config->hash_types, kind);
	for (__u32 i = 0; i < VNET_INPUT_LEN; i++) {
		__u32 *table = config->toeplitz[i];

		table[0] = 0;
		for (__u32 byte = 1; byte < 256; byte++) {
			__u32 lowest = __builtin_ctz(byte);

			table[byte] = table[byte & (byte - 1)] ^
				      key_window(config->key, 8 * i + 7 - lowest);
		}
	}
}

/* What `count` words at `input` add to the hash, from word `first` of it on. */
static inline __attribute__((always_inline)) __u32
hash_words(const struct vnet_config *config, const __u8 *input, __u32 first, __u32 count)
{
	__u32 hash = 0;

	for (__u32 i = 0; i < count; i++)
		hash ^= vnet_hash_word(config, first + i, vnet_u32(input + 4 * i));
	return hash;
}

API __u32 vh_toeplitz(const struct vnet_config *config, const __u8 *input, __u32 length)
{
	__u32 hash = 0;

	if (length > VNET_INPUT_LEN)
		length = VNET_INPUT_LEN;
	for (__u32 i = 0; i < length; i++)
		hash ^= config->toeplitz[i][input[i]];
	return hash;
}

API void vh_toeplitz_batch(const struct vnet_config *config, const __u8 *inputs, __u32 width,
			   __u64 count, __u32 *hashes)
{
	switch (width) { /* the widths of the hash types, each with its loop unrolled */
	case 8:
		for (__u64 i = 0; i < count; i++)
			hashes[i] = hash_words(config, inputs + 8 * i, 0, 2);
		break;
	case 12:
		for (__u64 i = 0; i < count; i++)
			hashes[i] = hash_words(config, inputs + 12 * i, 0, 3);
		break;
	case 32:
		for (__u64 i = 0; i < count; i++)
			hashes[i] = hash_words(config, inputs + 32 * i, 0, 8);
		break;
	case 36:
		for (__u64 i = 0; i < count; i++)
			hashes[i] = hash_words(config, inputs + 36 * i, 0, 9);
		break;
	default:
		for (__u64 i = 0; i < count; i++)
			hashes[i] = vh_toeplitz(config, inputs + width * i, width);
	}
}

static void decide(const struct vh_config *config, const struct vnet_headers *headers,
		   struct vh_verdict *verdict)
{
	__u32 rule = config->rss.rules[headers->kind];

	verdict->report = rule & VNET_RULE_REPORT;
	if (verdict->report) {
		verdict->hash_value = vnet_hash(&config->rss, headers, rule);
		verdict->index = verdict->hash_value & config->rss.table_mask;
		verdict->queue = config->table[verdict->index];
	} else {
		verdict->hash_value = 0;
		verdict->index = ~0u;
		verdict->queue = config->rss.unclassified;
	}
}

API void vh_classify(const struct vh_config *config, const __u8 *frame, __u32 length, int is_l3,
		     struct vh_verdict *verdict)
{
	struct vnet_frame view = { .data = frame, .length = length, .is_l3 = is_l3 };
	struct vnet_headers headers;

	vnet_dissect(&view, &headers);
	decide(config, &headers, verdict);
}

API void vh_classify_batch(const struct vh_config *config, const __u8 *frames,
			   const __u64 *offsets, const __u32 *lengths, __u64 count, int is_l3,
			   struct vh_verdict *verdicts)
{
	for (__u64 i = 0; i < count; i++)
		vh_classify(config, frames + offsets[i], lengths[i], is_l3, &verdicts[i]);
}

/*
 * Write the slot that is not in force, then put it in force. The hash stage
 * takes a slot for whole only while its generation is the one in force, so
 * every packet is decided by one configuration.
 */
API void vh_publish(struct vnet_state *state, __u64 *table, __u32 table_words,
		    const struct vh_config *config)
{
	__u32 generation = state->generation + 1;
	struct vnet_config *slot;

	if (generation == 0) /* means "being written" */
		generation = 2;
	slot = &state->config[generation & 1];
	table += (generation & 1) * table_words;

	__atomic_store_n(&slot->generation, 0, __ATOMIC_RELAXED);
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	memcpy((__u8 *)slot + sizeof(slot->generation),
	       (const __u8 *)&config->rss + sizeof(slot->generation),
	       sizeof(*slot) - sizeof(slot->generation));
	memcpy(table, config->table, (config->rss.table_mask + 1) * sizeof(config->table[0]));
	__atomic_store_n(&slot->generation, generation, __ATOMIC_RELEASE);
	__atomic_store_n(&state->generation, generation, __ATOMIC_SEQ_CST);
}

#define FOREVER ((time_t)1 << 62)

struct vh_history {
	pthread_rwlock_t lock;
	const struct vh_config *config[HISTORY]; /* newest first */
	time_t retired[HISTORY];                 /* when it went out of force */
	int reports;                             /* one of them asks for hashes */
	time_t records_until;                    /* when the last record may be met */
};

API struct vh_history *vh_history_new(void)
{
	struct vh_history *history = calloc(1, sizeof(*history));
	pthread_rwlockattr_t attributes;

	if (!history)
		return NULL;
	/* A change of configuration must not wait for readers who never pause. */
	pthread_rwlockattr_init(&attributes);
	pthread_rwlockattr_setkind_np(&attributes, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
	pthread_rwlock_init(&history->lock, &attributes);
	pthread_rwlockattr_destroy(&attributes);
	return history;
}

API void vh_history_free(struct vh_history *history)
{
	for (int i = 0; i < HISTORY; i++)
		free((void *)history->config[i]);
	pthread_rwlock_destroy(&history->lock);
	free(history);
}

/*
 * To be called before the kernel steers by `config`: readers hold the lock
 * while they drain a queue, so none meets a packet of a configuration it does
 * not know.
 */
API int vh_history_push(struct vh_history *history, const struct vh_config *config)
{
	size_t size = sizeof(*config) + (config->rss.table_mask + 1) * sizeof(config->table[0]);
	const struct vh_config *forgotten[HISTORY] = {};
	struct vh_config *copy = malloc(size);
	struct timespec now;

	if (!copy)
		return -ENOMEM;
	memcpy(copy, config, size);
	clock_gettime(CLOCK_MONOTONIC_COARSE, &now);

	pthread_rwlock_wrlock(&history->lock);
	forgotten[0] = history->config[HISTORY - 1];
	for (int i = HISTORY - 1; i > 0; i--) {
		history->config[i] = history->config[i - 1];
		history->retired[i] = i > 1 ? history->retired[i - 1] : now.tv_sec;
		if (i > 1 && history->retired[i] + MEMORY < now.tv_sec) {
			forgotten[i] = history->config[i];
			history->config[i] = NULL;
		}
	}
	history->config[0] = copy;
	history->reports = 0;
	for (int i = 0; i < HISTORY && history->config[i]; i++)
		history->reports |= history->config[i]->rss.reporting != VNET_REPORTING_OFF;
	if (config->rss.reporting == VNET_REPORTING_RECORD)
		history->records_until = FOREVER;
	else if (history->records_until == FOREVER)
		history->records_until = now.tv_sec + MEMORY;
	pthread_rwlock_unlock(&history->lock);

	for (int i = 0; i < HISTORY; i++)
		free((void *)forgotten[i]);
	return 0;
}

/* The configuration that explains why a packet came to `queue`, and its verdict. */
static const struct vh_config *explain(const struct vh_history *history,
				       const struct vnet_headers *headers, __u16 queue,
				       struct vh_verdict *verdict)
{
	for (int i = 0; i < HISTORY && history->config[i]; i++) {
		decide(history->config[i], headers, verdict);
		if (verdict->queue == queue)
			return history->config[i];
	}
	decide(history->config[0], headers, verdict); /* somebody else steered it */
	return history->config[0];
}

/* Hash a frame that arrived without a hash, if asked to at all. */
static void rehash(const struct vh_reader *reader, const __u8 *frame, __u32 length,
		   struct vnet_hdr *header)
{
	struct vnet_frame view = { .data = frame, .length = length, .is_l3 = reader->is_l3 };
	const struct vh_config *config;
	struct vnet_headers headers;
	struct vh_verdict verdict;

	if (!reader->history->reports)
		return;
	vnet_dissect(&view, &headers);
	config = explain(reader->history, &headers, reader->queue, &verdict);
	if (config->rss.reporting != VNET_REPORTING_OFF) {
		header->hash_value = verdict.hash_value;
		header->hash_report = verdict.report;
	}
}

static void count(struct vnet_counters *counters, const struct vh_packet *packet)
{
	struct vnet_traffic *traffic = &counters->by_report[packet->header.hash_report];

	traffic->packets++;
	traffic->bytes += packet->length;
}

static int is_record(const __u8 *at, ssize_t length)
{
	struct vnet_record record;

	if (length < VNET_RECORD_LEN)
		return 0;
	memcpy(&record, at, sizeof(record));
	return record.mark[0] == VNET_MARK_0 && record.mark[1] == VNET_MARK_1 &&
	       record.hash_report < VNET_REPORTS;
}

/*
 * What the kernel wrote into the header counts from the start of the record.
 * num_buffers it may not have written at all.
 */
static void correct_header(struct vnet_hdr *header, int has_record)
{
	header->num_buffers = 1;
	if (!has_record)
		return;
	if (header->flags & 1 /* VIRTIO_NET_HDR_F_NEEDS_CSUM */ &&
	    header->csum_start >= VNET_RECORD_LEN)
		header->csum_start -= VNET_RECORD_LEN;
	if (header->hdr_len >= VNET_RECORD_LEN)
		header->hdr_len -= VNET_RECORD_LEN;
}

/* Read one packet to `buffer`. Returns the bytes read, 0 if there is none. */
static ssize_t read_packet(int fd, __u32 header, __u8 *buffer, __u64 size)
{
	ssize_t length;

	do
		length = read(fd, buffer, size);
	while (length < 0 && errno == EINTR);
	if (length < 0)
		return errno == EAGAIN ? 0 : -errno;
	return length < header ? -EBADMSG : length;
}

static void take_packet(const __u8 *buffer, ssize_t length, int takes_records,
			struct vh_packet *packet)
{
	packet->header = (struct vnet_hdr){};
	memcpy(&packet->header, buffer, VNET_HDR_LEN);
	packet->has_record =
		takes_records && is_record(buffer + VNET_HDR_LEN, length - VNET_HDR_LEN);
	if (packet->has_record) /* its mark is not for the reader */
		memcpy(&packet->header.hash_value, buffer + VNET_HDR_LEN, 6);
	packet->offset = packet->has_record ? VNET_HDR_HASH_LEN : VNET_HDR_LEN;
	packet->length = length - packet->offset;
	correct_header(&packet->header, packet->has_record);
}

/* The same from a kernel that writes the hash into a header of 20 bytes itself. */
static void take_reported(const __u8 *buffer, ssize_t length, struct vh_packet *packet)
{
	memcpy(&packet->header, buffer, VNET_HDR_HASH_LEN);
	packet->has_record = packet->header.hash_report != VNET_REPORT_NONE;
	if (packet->header.hash_report >= VNET_REPORTS) {
		packet->header.hash_value = 0;
		packet->header.hash_report = VNET_REPORT_NONE;
	}
	packet->header.num_buffers = 1;
	packet->header.padding = 0;
	packet->offset = VNET_HDR_HASH_LEN;
	packet->length = length - VNET_HDR_HASH_LEN;
}

API int vh_receive(const struct vh_reader *reader, __u8 *arena, __u64 size,
		   struct vh_packet *packets, __u32 max)
{
	struct timespec now;
	ssize_t length = 0;
	__u64 used = 0;
	__u32 n = 0;
	int records;

	clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
	pthread_rwlock_rdlock(&reader->history->lock);
	/* Where none can be, a frame that looks like one is a frame. */
	records = reader->takes_records && now.tv_sec <= reader->history->records_until;
	while (n < max && size - used >= LARGEST) {
		struct vh_packet *packet = &packets[n];

		length = read_packet(reader->fd, reader->header, arena + used, size - used);
		if (length <= 0)
			break;
		if (reader->header == VNET_HDR_HASH_LEN)
			take_reported(arena + used, length, packet);
		else
			take_packet(arena + used, length, records, packet);
		packet->offset += used;
		packet->queue = reader->queue;
		if (!packet->has_record && reader->rehashes)
			rehash(reader, arena + packet->offset, packet->length, &packet->header);
		if (reader->counters)
			count(reader->counters, packet);
		used = (used + length + 63) & ~63ull;
		n++;
	}
	pthread_rwlock_unlock(&reader->history->lock);
	return n || length >= 0 ? (int)n : (int)length; /* an error comes back next time */
}

/*
 * Steering in user space. Whoever reads a queue reads all of the tap's, keeps
 * what is for it and leaves the rest where the others find it. One lock: the
 * packets of a flow stay in order whoever reads them.
 */
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
