/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0) OR Apache-2.0 */
/*
 * What crosses a boundary: between the hash stage and whoever reads the tap,
 * between user space and the BPF maps, between Python and C. Every size and
 * number in here exists once. The build hook feeds this very file, without
 * its preprocessor lines, to cffi, which is why numbers are enumerators.
 *
 * "virtio" below is the Virtual I/O Device specification, version 1.3,
 * section 5.1 (Network Device).
 */
#ifndef VNETHASH_H
#define VNETHASH_H

#include <linux/types.h>

/*
 * The contract between a BPF object and who loads it: the layouts and maps of
 * this file and of vnet_hash.h. Goes up with every change that an object
 * compiled before would not survive.
 */
enum vnet_abi {
	VNET_ABI = 3,
};

enum vnet_limit {
	VNET_KEY_LEN = 40,       /* rss_max_key_size, virtio 5.1.4 */
	VNET_INPUT_LEN = 36,     /* two IPv6 addresses and two ports */
	VNET_INPUT_WORDS = 9,
	VNET_HEAD_WORDS = 53,    /* of struct vnet_config before its tables */
	VNET_TABLE_MAX = 32768,  /* a le16 mask; entries are a power of two */
	VNET_TABLE_NEAR = 128,  /* entries that lie with the configuration: most tables are no longer */
	VNET_QUEUES_MAX = 256,  /* MAX_TAP_QUEUES, drivers/net/tun.c */
	VNET_COUNTS = 16,       /* counters of a hash program's own */
	VNET_RECORD_LEN = 8,
	VNET_HDR_LEN = 12,       /* struct virtio_net_hdr_v1 */
	VNET_HDR_HASH_LEN = 20,  /* struct virtio_net_hdr_v1_hash */
};

/* virtio 5.1.6.4.3.1: hash types, a bitmask */
enum vnet_hash_type {
	VNET_HASH_IPV4 = 1,
	VNET_HASH_TCPV4 = 2,
	VNET_HASH_UDPV4 = 4,
	VNET_HASH_IPV6 = 8,
	VNET_HASH_TCPV6 = 16,
	VNET_HASH_UDPV6 = 32,
	VNET_HASH_IP_EX = 64,
	VNET_HASH_TCP_EX = 128,
	VNET_HASH_UDP_EX = 256,
	VNET_HASH_ALL = 511,
};

/* virtio 5.1.6.4.5: report types; hash type = 1 << (report type - 1) */
enum vnet_report {
	VNET_REPORT_NONE = 0,
	VNET_REPORT_IPV4 = 1,
	VNET_REPORT_TCPV4 = 2,
	VNET_REPORT_UDPV4 = 3,
	VNET_REPORT_IPV6 = 4,
	VNET_REPORT_TCPV6 = 5,
	VNET_REPORT_UDPV6 = 6,
	VNET_REPORT_IPV6_EX = 7,
	VNET_REPORT_TCPV6_EX = 8,
	VNET_REPORT_UDPV6_EX = 9,
	VNET_REPORTS = 10,
};

/* virtio 5.1.6.4.4: encapsulations whose inner headers may be hashed, a bitmask */
enum vnet_tunnel {
	VNET_TUNNEL_GRE_2784 = 1,
	VNET_TUNNEL_GRE_2890 = 2,
	VNET_TUNNEL_GRE_7676 = 4,
	VNET_TUNNEL_GRE_UDP = 8,
	VNET_TUNNEL_VXLAN = 16,
	VNET_TUNNEL_VXLAN_GPE = 32,
	VNET_TUNNEL_GENEVE = 64,
	VNET_TUNNEL_IPIP = 128,
	VNET_TUNNEL_NVGRE = 256,
	VNET_TUNNEL_ALL = 511,
	VNET_TUNNEL_ANY = 0xffff,
};

/*
 * A packet's kind is the report type it would have if all hash types were
 * enabled. What the enabled ones make of it is worked out beforehand.
 */
enum vnet_rule {
	VNET_RULE_REPORT = 15, /* mask: the report type */
	VNET_RULE_PORTS = 16,  /* hash the ports too */
	VNET_RULE_FINAL = 32,  /* hash the addresses of a mobile node's headers */
};

enum vnet_reporting {
	VNET_REPORTING_OFF = 0,
	VNET_REPORTING_REHASH = 1,
	VNET_REPORTING_RECORD = 2,
};

/* Why a frame passed without the record it should have had. */
enum vnet_unmarked {
	VNET_UNMARKED_TOO_LARGE = 0, /* bpf_skb_change_head() takes no more */
	VNET_UNMARKED_NO_ROOM = 1,   /* it refused for any other reason */
	VNET_UNMARKED_UDP_GSO = 2,   /* the device segments it in software */
	VNET_UNMARKED_VLAN = 3,      /* more offloaded tags than we put back */
	VNET_UNMARKED_REASONS = 4,
};

/* What a hash program said that cannot be. */
enum vnet_invalid {
	VNET_INVALID_QUEUE = 0,  /* the tap has no such queue: unclassified */
	VNET_INVALID_REPORT = 1, /* no such report type: reported without a hash */
	VNET_INVALIDS = 2,
};

/*
 * The hash record: what the hash stage puts in front of the frame, so that
 * the 12-byte header the kernel writes and these 8 bytes are the 20 bytes of
 * struct virtio_net_hdr_v1_hash (virtio 5.1.6). `mark` lies in its padding,
 * over the first bytes of the source address of a frame without a record.
 * The lowest bit of mark[0] would make that a group address, which no
 * sender has; on a device without Ethernet headers it would be a reserved
 * flag of IPv4 or an unassigned next header of IPv6.
 */
enum vnet_mark {
	VNET_MARK_0 = 0xb5,
	VNET_MARK_1 = 0x1d,
};

struct vnet_record {
	__u32 hash_value;  /* little-endian */
	__u16 hash_report; /* little-endian, enum vnet_report */
	__u8 mark[2];
};

/* struct virtio_net_hdr_v1_hash, little-endian */
struct vnet_hdr {
	__u8 flags;
	__u8 gso_type;
	__u16 hdr_len;
	__u16 gso_size;
	__u16 csum_start;
	__u16 csum_offset;
	__u16 num_buffers;
	__u32 hash_value;
	__u16 hash_report;
	__u16 padding;
};

/*
 * One RSS configuration as the packet path wants it. `generation` says which
 * configuration a slot holds; 0 while it is being written. A configuration
 * with generation g lies in slot g & 1.
 */
struct vnet_config {
	__u32 generation;
	__u32 hash_types;    /* enum vnet_hash_type */
	__u32 table_mask;    /* entries of the indirection table, less one */
	__u16 unclassified;  /* queue of packets without a hash */
	__u16 queues;
	__u32 reporting;     /* enum vnet_reporting */
	__u32 tunnels;       /* enum vnet_tunnel: hashed by their inner headers */
	__u32 key_generation; /* of the first in a row with this key: which the tables are of */
	__u8 key[VNET_KEY_LEN];
	__u8 rules[16];      /* by kind of packet: its report type and enum vnet_rule */
	__u8 near[VNET_TABLE_NEAR]; /* the first queues of the indirection table */
	/* toeplitz[i][b]: what byte b at offset i of the input adds */
	__u32 toeplitz[VNET_INPUT_LEN][256];
};

/* Facts of a tap, fixed when the stages are loaded: .rodata.vnet. */
struct vnet_device {
	__u32 abi;            /* enum vnet_abi, as it was when the object was compiled */
	__u32 is_l3;          /* no Ethernet header: IFF_TUN */
	__u32 table_words;    /* of one indirection table, four queues each */
	__u32 weakly_ordered; /* the CPU reorders loads */
};

/* A configuration up to its tables: struct vnet_config as far as it goes. */
struct vnet_slot {
	__u32 head[VNET_HEAD_WORDS];
};

/*
 * What user space changes while packets pass, one value: .data.vnet. There are
 * two slots, but tables only once, as they are nearly all there is to a
 * configuration: while a new key's are written, packets are hashed by the key
 * in a slot, bit by bit. Of `tables` only key_generation, 0 meanwhile, and
 * toeplitz are used.
 */
struct vnet_state {
	__u32 generation;    /* the configuration in force */
	__u32 record_udp_gso; /* the device takes UDP GSO whole: mark it */
	struct vnet_slot slot[2];
	struct vnet_config tables;
};

struct vnet_traffic {
	__u64 packets;
	__u64 bytes;
};

/* Per CPU, one a queue: what was steered to it. Bytes count the frame. */
struct vnet_counters {
	struct vnet_traffic by_report[VNET_REPORTS];
	__u64 unmarked[VNET_UNMARKED_REASONS];
	__u64 invalid[VNET_INVALIDS];
};

#ifndef VNETHASH_CDEF
_Static_assert(sizeof(struct vnet_record) == VNET_RECORD_LEN, "hash record");
_Static_assert(sizeof(struct vnet_hdr) == VNET_HDR_HASH_LEN, "virtio header");
_Static_assert(VNET_HDR_LEN + VNET_RECORD_LEN == VNET_HDR_HASH_LEN, "record completes the header");
_Static_assert(sizeof(struct vnet_config) == sizeof(struct vnet_slot) + VNET_INPUT_LEN * 1024,
	       "config layout");
_Static_assert(sizeof(struct vnet_counters) == 208, "counters layout");
_Static_assert(VNET_QUEUES_MAX <= 256, "near[] has bytes");
_Static_assert(VNET_HASH_UDP_EX == 1 << (VNET_REPORT_UDPV6_EX - 1), "virtio 5.1.6.4.5");
_Static_assert(VNET_MARK_0 & 1, "a group address");
_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "virtio 1.x is little-endian");
#endif

#endif
