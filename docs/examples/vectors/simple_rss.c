// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
/*
 * RSS hashing as drivers often have it first: Ethernet II, IPv4 and IPv6, TCP
 * and UDP, and not a word of fragments, VLANs or extension headers. Reads the
 * requests of `vnethash vectors check` and answers them:
 *
 *     cc -o simple_rss simple_rss.c
 *     vnethash vectors check --command ./simple_rss
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { IPV4 = 1, TCPV4, UDPV4, IPV6, TCPV6, UDPV6 }; /* VIRTIO_NET_HASH_REPORT_.. */

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

static uint32_t toeplitz(const uint8_t *key, const uint8_t *data, size_t length)
{
	uint32_t window = (uint32_t)key[0] << 24 | key[1] << 16 | key[2] << 8 | key[3];
	uint32_t hash = 0;

	for (size_t bit = 0; bit < 8 * length; bit++) {
		if (data[bit / 8] >> (7 - bit % 8) & 1)
			hash ^= window;
		window = window << 1 | (key[bit / 8 + 4] >> (7 - bit % 8) & 1);
	}
	return hash;
}

/* The first enabled report type of TCP's or UDP's and the addresses' own. */
static struct verdict hash_packet(const struct config *config, unsigned base, unsigned protocol,
				  const uint8_t *addresses, size_t length, const uint8_t *l4,
				  size_t left)
{
	unsigned with_ports = protocol == 6 ? base + 1 : protocol == 17 ? base + 2 : 0;
	uint8_t input[36];

	memcpy(input, addresses, length);
	if (with_ports && left >= 4 && config->hash_types >> (with_ports - 1) & 1) {
		memcpy(input + length, l4, 4);
		return (struct verdict){ with_ports, toeplitz(config->key, input, length + 4) };
	}
	if (config->hash_types >> (base - 1) & 1)
		return (struct verdict){ base, toeplitz(config->key, input, length) };
	return (struct verdict){ 0, 0 };
}

static struct verdict classify(const struct config *config, const uint8_t *frame, size_t length)
{
	if (length >= 34 && frame[12] == 0x08 && frame[13] == 0x00) {
		size_t l4 = 14 + 4 * (frame[14] & 15);

		return hash_packet(config, IPV4, frame[23], frame + 26, 8, frame + l4,
				   length > l4 ? length - l4 : 0);
	}
	if (length >= 54 && frame[12] == 0x86 && frame[13] == 0xdd)
		return hash_packet(config, IPV6, frame[20], frame + 22, 32, frame + 54,
				   length - 54);
	return (struct verdict){ 0, 0 };
}

/* What follows `"name": `; a request has each name once, and a fixed form. */
static const char *value_of(const char *line, const char *name)
{
	char quoted[64];
	const char *at;

	snprintf(quoted, sizeof(quoted), "\"%s\": ", name);
	at = strstr(line, quoted);
	if (!at) {
		fprintf(stderr, "simple_rss: no %s in the request\n", name);
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

int main(void)
{
	static struct config config;
	static uint8_t frame[65536];
	char *line = NULL;
	size_t room = 0;

	while (getline(&line, &room, stdin) > 0) {
		int id_length = strcspn(value_of(line, "id") + 1, "\"");
		const char *id = value_of(line, "id") + 1;
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
