// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
/*
 * RSS hashing as drivers often have it first: Ethernet II, IPv4 and IPv6, TCP
 * and UDP, and not a word of fragments, VLANs or extension headers.
 *
 *     cc -o simple_rss simple_rss.c
 *     vnethash vectors check --command ./simple_rss
 */
#include "requests.h"

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
	return (struct verdict){ NONE, 0 };
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
	return (struct verdict){ NONE, 0 };
}

int main(void)
{
	return answer_requests(classify);
}
