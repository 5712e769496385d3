// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
#include <errno.h>
#include <stdlib.h>

#include "api.h"
#include "classify.h"
#include "history.h"

#define FOREVER ((time_t)1 << 62)

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
		if (i > 1 && history->retired[i] + HISTORY_SECONDS < now.tv_sec) {
			forgotten[i] = history->config[i];
			history->config[i] = NULL;
		}
	}
	history->config[0] = copy;
	history->reports = 0;
	history->tunnels = 0;
	for (int i = 0; i < HISTORY && history->config[i]; i++) {
		history->reports |= history->config[i]->rss.reporting != VNET_REPORTING_OFF;
		history->tunnels |= history->config[i]->rss.tunnels;
	}
	if (config->rss.reporting == VNET_REPORTING_RECORD)
		history->records_until = FOREVER;
	else if (history->records_until == FOREVER)
		history->records_until = now.tv_sec + HISTORY_SECONDS;
	pthread_rwlock_unlock(&history->lock);

	for (int i = 0; i < HISTORY; i++)
		free((void *)forgotten[i]);
	return 0;
}

/* What a configuration makes of a frame, whose headers are as the last one saw them. */
static void judge(const struct vh_config *config, struct vnet_frame *frame,
		  struct vnet_headers *headers, struct vh_verdict *verdict)
{
	if (!vnet_hold_for(headers, config->rss.tunnels)) {
		frame->tunnels = config->rss.tunnels;
		vnet_dissect(frame, headers);
	}
	decide(config, headers, verdict);
}

/* The configuration that explains why a packet came to `queue`, and its verdict. */
static const struct vh_config *explain(const struct vh_history *history, struct vnet_frame frame,
				       __u16 queue, struct vh_verdict *verdict)
{
	struct vnet_headers headers;

	frame.tunnels = history->config[0]->rss.tunnels;
	vnet_dissect(&frame, &headers);
	for (int i = 0; i < HISTORY && history->config[i]; i++) {
		judge(history->config[i], &frame, &headers, verdict);
		if (verdict->queue == queue || verdict->queue == VH_ANY_QUEUE)
			return history->config[i];
	}
	judge(history->config[0], &frame, &headers, verdict); /* somebody else steered it */
	return history->config[0];
}

int history_has_records(const struct vh_history *history)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
	return now.tv_sec <= history->records_until;
}

int history_rehash(const struct vh_history *history, __u16 queue, const struct vnet_frame *frame,
		   struct vnet_hdr *header)
{
	const struct vh_config *config;
	struct vh_verdict verdict;

	if (!history->reports)
		return 0;
	config = explain(history, *frame, queue, &verdict);
	if (config->rss.reporting == VNET_REPORTING_OFF)
		return 0;
	header->hash_value = verdict.hash_value;
	header->hash_report = verdict.report;
	return 1;
}
