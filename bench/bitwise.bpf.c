// SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0
/*
 * What vnethash is measured against: RSS steering in one TUNSETSTEERINGEBPF
 * program that reads every header with a helper call and hashes bit by bit,
 * the way VMMs do it. It gives the queue and nothing else.
 *
 * Written from the specification (virtio 1.3, 5.1.6.4.3 and 5.1.6.5.7) for
 * what the benchmark sends: IPv4 and IPv6, TCP and UDP, no VLAN tags. Behind
 * an IPv6 extension header it looks for no ports, and it knows no _EX types.
 *
 * Two programs: `bitwise` hashes as many bytes as the input has;
 * `bitwise_padded` always hashes all 36 bytes the input could have, zeros at
 * its end, which spares a VMM one loop bound that depends on the packet.
 */
#include "../native/bpf.h"
#include "../native/vnethash.h"

struct bitwise_config {
	__u32 hash_types;   /* enum vnet_hash_type */
	__u32 table_mask;   /* entries of the indirection table, less one */
	__u32 unclassified; /* queue of packets without a hash */
};

struct bitwise_key {
	__u8 bytes[VNET_KEY_LEN];
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct bitwise_config);
} bitwise_configs SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct bitwise_key);
} bitwise_keys SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 128);
	__type(key, __u32);
	__type(value, __u16);
} bitwise_table SEC(".maps");

/* The input of the hash, in network order; 0 bytes: there is none. */
struct input {
	__u8 bytes[VNET_INPUT_LEN];
	__u32 length;
};

/* Add the ports if `protocol` is TCP or UDP, its type is enabled and its header whole. */
static __always_inline void add_ports(struct __sk_buff *skb, struct input *input,
				      const struct bitwise_config *config, __u8 protocol,
				      __u32 offset, __u32 addresses, __u32 tcp, __u32 udp)
{
	__u8 header[20];
	__u32 length;

	if (protocol == 6 && config->hash_types & tcp)
		length = 20;
	else if (protocol == 17 && config->hash_types & udp)
		length = 8;
	else
		return;
	if (length == 20) {
		if (bpf_skb_load_bytes_relative(skb, offset, header, 20, BPF_HDR_START_NET))
			return;
	} else if (bpf_skb_load_bytes_relative(skb, offset, header, 8, BPF_HDR_START_NET)) {
		return;
	}
	__builtin_memcpy(input->bytes + addresses, header, 4);
	input->length = addresses + 4;
}

static __always_inline void read_ipv4(struct __sk_buff *skb, struct input *input,
				      const struct bitwise_config *config)
{
	__u8 ip[20];
	__u32 offset;

	if (bpf_skb_load_bytes_relative(skb, 0, ip, sizeof(ip), BPF_HDR_START_NET))
		return;
	offset = (ip[0] & 15) * 4;
	if (ip[0] >> 4 != 4 || offset < 20)
		return;
	__builtin_memcpy(input->bytes, ip + 12, 8);
	if (!(ip[6] & 0x3f) && !ip[7]) /* no fragment */
		add_ports(skb, input, config, ip[9], offset, 8, VNET_HASH_TCPV4, VNET_HASH_UDPV4);
	if (!input->length && config->hash_types & VNET_HASH_IPV4)
		input->length = 8;
}

static __always_inline void read_ipv6(struct __sk_buff *skb, struct input *input,
				      const struct bitwise_config *config)
{
	__u8 ip[40];

	if (bpf_skb_load_bytes_relative(skb, 0, ip, sizeof(ip), BPF_HDR_START_NET))
		return;
	if (ip[0] >> 4 != 6)
		return;
	__builtin_memcpy(input->bytes, ip + 8, 32);
	add_ports(skb, input, config, ip[6], 40, 32, VNET_HASH_TCPV6, VNET_HASH_UDPV6);
	if (!input->length && config->hash_types & VNET_HASH_IPV6)
		input->length = 32;
}

/* For each set bit of the input, the 32 bits of the key that start there. */
static __always_inline __u32 toeplitz(const struct bitwise_key *key, const struct input *input,
				      __u32 length)
{
	__u32 window = (__u32)key->bytes[0] << 24 | (__u32)key->bytes[1] << 16 |
		       (__u32)key->bytes[2] << 8 | key->bytes[3];
	__u32 hash = 0;

	_Pragma("clang loop unroll(disable)")
	for (__u32 i = 0; i < VNET_INPUT_LEN; i++) {
		__u8 byte = input->bytes[i];
		__u8 next = key->bytes[i + 4];

		if (i >= length)
			break;
		for (int bit = 7; bit >= 0; bit--) {
			if (byte >> bit & 1)
				hash ^= window;
			window = window << 1 | (next >> bit & 1);
		}
	}
	return hash;
}

static __always_inline int steer(struct __sk_buff *skb, int padded)
{
	struct bitwise_config *config;
	struct bitwise_key *key;
	struct input input = {};
	__u32 index = 0;
	__u16 *queue;

	config = bpf_map_lookup_elem(&bitwise_configs, &index);
	key = bpf_map_lookup_elem(&bitwise_keys, &index);
	if (!config || !key)
		return 0;
	if (skb->protocol == __builtin_bswap16(0x0800))
		read_ipv4(skb, &input, config);
	else if (skb->protocol == __builtin_bswap16(0x86dd))
		read_ipv6(skb, &input, config);
	if (!input.length)
		return config->unclassified;
	index = toeplitz(key, &input, padded ? VNET_INPUT_LEN : input.length) & config->table_mask;
	queue = bpf_map_lookup_elem(&bitwise_table, &index);
	return queue ? *queue : config->unclassified;
}

SEC("socket")
int bitwise(struct __sk_buff *skb)
{
	return steer(skb, 0);
}

SEC("socket")
int bitwise_padded(struct __sk_buff *skb)
{
	return steer(skb, 1);
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
