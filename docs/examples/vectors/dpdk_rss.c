// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
/*
 * What DPDK's own functions make of the vectors: rte_net_get_ptype() says what is in a
 * packet, rte_softrss() hashes. DPDK has no function that puts the two together.
 *
 *     cc -o dpdk_rss dpdk_rss.c $(pkg-config --cflags --libs libdpdk)
 *     vnethash vectors check --command ./dpdk_rss
 */
#include "requests.h"

#include <rte_mbuf.h>
#include <rte_net.h>
#include <rte_thash.h>

/* rte_softrss() takes words in host order. */
static uint32_t softrss(const uint8_t *key, const uint8_t *data, size_t length)
{
	uint32_t words[9];

	for (size_t i = 0; i < length / 4; i++) {
		memcpy(&words[i], data + 4 * i, 4);
		words[i] = rte_be_to_cpu_32(words[i]);
	}
	return rte_softrss(words, length / 4, key);
}

static int is_enabled(const struct config *config, unsigned report)
{
	return report && config->hash_types >> (report - 1) & 1;
}

static struct verdict classify(const struct config *config, const uint8_t *frame, size_t length)
{
	struct rte_mbuf mbuf = {
		.buf_addr = (void *)frame,
		.buf_len = UINT16_MAX,
		.data_len = length,
		.pkt_len = length,
		.nb_segs = 1,
	};
	struct rte_net_hdr_lens lens;
	uint32_t type = rte_net_get_ptype(&mbuf, &lens, RTE_PTYPE_ALL_MASK);
	uint32_t l4 = type & RTE_PTYPE_L4_MASK;
	const uint8_t *ip = frame + lens.l2_len;
	unsigned base, with_ports;
	uint8_t input[36];
	size_t addresses;

	if (RTE_ETH_IS_IPV4_HDR(type)) {
		base = IPV4;
		addresses = 8;
		memcpy(input, ip + 12, addresses);
	} else if (RTE_ETH_IS_IPV6_HDR(type)) {
		base = IPV6;
		addresses = 32;
		memcpy(input, ip + 8, addresses);
	} else {
		return (struct verdict){ NONE, 0 };
	}
	with_ports = l4 == RTE_PTYPE_L4_TCP ? base + 1 : l4 == RTE_PTYPE_L4_UDP ? base + 2 : NONE;
	if (is_enabled(config, with_ports)) {
		memcpy(input + addresses, ip + lens.l3_len, 4);
		return (struct verdict){ with_ports, softrss(config->key, input, addresses + 4) };
	}
	if (is_enabled(config, base))
		return (struct verdict){ base, softrss(config->key, input, addresses) };
	return (struct verdict){ NONE, 0 };
}

int main(void)
{
	return answer_requests(classify);
}
