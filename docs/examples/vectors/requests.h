/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0) OR Apache-2.0 */
/*
 * Reads what `vnethash vectors check` asks on standard input and answers on
 * standard output. To include it, define
 *
 *     static struct verdict classify(const struct config *config, const uint8_t *frame,
 *                                    size_t length);
 *
 * and call answer_requests(classify) from main().
 */
#ifndef REQUESTS_H
#define REQUESTS_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { NONE, IPV4, TCPV4, UDPV4, IPV6, TCPV6, UDPV6 }; /* VIRTIO_NET_HASH_REPORT_.. */

struct config {
	uint32_t hash_types; /* bit (report - 1) */
	uint8_t key[40];
	uint16_t table[32768];
	size_t entries;
	unsigned unclassified;
};

struct verdict {
	unsigned report;
	uint32_t hash;
};

typedef struct verdict (*classifier)(const struct config *, const uint8_t *, size_t);

/* What follows `"name": `; a request has each name once, and a fixed form. */
static const char *value_of(const char *line, const char *name)
{
	char quoted[64];
	const char *at;

	snprintf(quoted, sizeof(quoted), "\"%s\": ", name);
	at = strstr(line, quoted);
	if (!at) {
		fprintf(stderr, "no %s in the request\n", name);
		exit(1);
	}
	return at + strlen(quoted);
}

static size_t parse_hex(const char *text, uint8_t *bytes, size_t most)
{
	size_t count = 0;

	for (text++; count < most && sscanf(text, "%2hhx", &bytes[count]) == 1; text += 2)
		count++;
	return count;
}

static void parse_config(const char *line, struct config *config)
{
	const char *at = value_of(line, "indirection_table");
	char *end;

	config->hash_types = strtoul(value_of(line, "hash_types_bits"), NULL, 10);
	config->unclassified = strtoul(value_of(line, "unclassified_queue"), NULL, 10);
	parse_hex(value_of(line, "key"), config->key, sizeof(config->key));
	for (config->entries = 0; *at != ']' && config->entries < 32768; at = end)
		config->table[config->entries++] = strtoul(at + 1, &end, 10);
}

static int answer_requests(classifier classify)
{
	static struct config config;
	static uint8_t frame[65536];
	char *line = NULL;
	size_t room = 0;

	while (getline(&line, &room, stdin) > 0) {
		const char *id = value_of(line, "id") + 1;
		int id_length = strcspn(id, "\"");
		struct verdict verdict;
		unsigned queue;
		size_t length;

		if (!strncmp(value_of(line, "link_type"), "\"raw\"", 5)) {
			printf("{\"id\": \"%.*s\", \"unsupported\": \"Ethernet only\"}\n", id_length, id);
			continue;
		}
		parse_config(line, &config);
		length = parse_hex(value_of(line, "frame"), frame, sizeof(frame));
		verdict = classify(&config, frame, length);
		queue = verdict.report ? config.table[verdict.hash & (config.entries - 1)] :
					 config.unclassified;
		printf("{\"id\": \"%.*s\", \"hash_report\": %u, \"hash_value\": %u, \"queue\": %u}\n",
		       id_length, id, verdict.report, verdict.hash, queue);
	}
	free(line);
	return 0;
}

#endif
