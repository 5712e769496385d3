/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/*
 * What a configuration makes of the packets of a capture: flows, the load of
 * each entry of the indirection table over time, and what has no hash and why.
 * Everything is a sum, so censuses of parts add up to that of the whole.
 */
#ifndef VNETHASH_CENSUS_H
#define VNETHASH_CENSUS_H

#include "capture.h"
#include "core.h"

/* A flow: addresses and ports as they lie in a packet, source first. */
struct vh_flow {
	__u8 addresses[32]; /* IPv4: 8 bytes, and zeros */
	__u8 ports[4];      /* zeros if the packet has none */
	__u32 hash_value;   /* 0 without a report type */
	__u64 packets, bytes;
	__u8 kind;          /* enum vnet_report as if all hash types were enabled */
	__u8 report;        /* enum vnet_report */
	__u8 reserved[6];
};

/* Why a packet has no hash. */
enum vh_reason {
	VH_REASON_NOT_IP = 0,    /* another protocol, by its EtherType */
	VH_REASON_BROKEN_IP = 1, /* its headers are cut short, or malformed */
	VH_REASON_TYPE_OFF = 2,  /* its hash type is not enabled */
	VH_REASON_LINK_TYPE = 3, /* a link type of which no IP packets can be read */
	VH_REASONS = 4,
};

struct vh_census;

/* NULL without memory. What it is given has to stay as it is. */
struct vh_census *vh_census_new(const struct vh_config *config, const struct vnet_bulk *bulk,
				__s64 window_ns);
void vh_census_free(struct vh_census *census);

/*
 * Count frames that lie in memory[size]. Returns 0, -ENOMEM: none of them was
 * counted, or -EFAULT: a frame does not lie there, and none was counted.
 */
int vh_census_frames(struct vh_census *census, const __u8 *memory, __u64 size,
		     const struct vh_frame *frames, __u32 count);

/*
 * Count flows with their packets and bytes, their hashes made anew. With
 * `times` the packets go to the windows of these; without, they are counted
 * there already. Returns 0, -ENOMEM or, for a kind that cannot be, -EINVAL:
 * none was counted.
 */
int vh_census_flows(struct vh_census *census, const struct vh_flow *flows, const __s64 *times,
		    __u64 count);

/*
 * Packets, by column, of one window; VH_NO_TIME: of none. Returns 0, or -EINVAL if there can
 * be no such window: nothing was counted.
 */
int vh_census_window(struct vh_census *census, __s64 length_ns, __s64 start_ns,
		     const struct vnet_traffic *traffic);

/* What was counted, to read and to add to. */
struct vh_counted {
	struct vnet_traffic unhashed[VH_REASONS];
	__u64 ether_types[65536]; /* packets that are not IP */
	__u64 captured_short;
	__u64 frames;
};
struct vh_counted *vh_census_counted(struct vh_census *census);

struct vh_census_size {
	__u64 flows;
	__u32 windows, columns;
	__s64 window_ns;
};
void vh_census_size(const struct vh_census *census, struct vh_census_size *size);

/* As many as vh_census_size() says. The windows in the order of time; one row more: untimed. */
void vh_census_read(const struct vh_census *census, struct vh_flow *flows, __s64 *starts_ns,
		    struct vnet_traffic *traffic);

#endif
