/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/*
 * Where the frames of a capture lie, found in large blocks of memory: records
 * of pcap (draft-ietf-opsawg-pcap), packet blocks of pcapng
 * (draft-ietf-opsawg-pcapng). Only what comes once a packet is here. Headers
 * of files, sections and interfaces, and all that breaks a rule, are left to
 * the reader in Python (vnethash/capture.py), which says what is wrong.
 */
#ifndef VNETHASH_CAPTURE_H
#define VNETHASH_CAPTURE_H

#include <linux/types.h>

enum vh_capture_limit {
	VH_FRAME_MAX = 262144, /* bytes of a frame: what libpcap and Wireshark take too */
};

enum vh_time {
	VH_TIME_MAX = 1ull << 62,  /* nanoseconds from the Unix epoch, 146 years: further is absurd */
	VH_NO_TIME = -(1ll << 62) * 2, /* which no window of time begins at */
};

/* What an interface says of its frames. A pcap file has one. */
struct vh_interface {
	/* Nanoseconds since the Unix epoch: (ticks * multiply >> shift) / divide + 1e9 * offset. */
	__u64 multiply, divide;
	__s64 offset; /* seconds */
	__u32 snaplen; /* 0: not limited */
	__u16 link_type;
	__u8 shift;
	__u8 reserved;
};

struct vh_capture {
	__u8 is_pcapng;
	__u8 is_swapped; /* of the other byte order than this machine's */
	__u16 reserved;
	__u32 interfaces;
	const struct vh_interface *interface;
};

struct vh_frame {
	__u64 offset;   /* in the memory it was found in */
	__s64 time_ns;  /* since the Unix epoch, or VH_NO_TIME */
	__u32 length;   /* as captured */
	__u32 original; /* on the wire, as the file says */
	__u16 link_type;
	__u16 reserved[3];
};

/* Why a walk ended. */
enum vh_walk {
	VH_WALK_MORE = 0, /* the next record does not lie whole in memory */
	VH_WALK_FULL = 1, /* no room for more frames */
	VH_WALK_ASK = 2,  /* the next record is for the reader in Python */
};

/* What came of it. */
struct vh_walked {
	__u64 used;   /* bytes of whole records from the start of memory */
	__u32 frames;
	__u32 end;    /* enum vh_walk */
};
void vh_capture_walk(const struct vh_capture *capture, const __u8 *memory, __u64 size,
		     struct vh_frame *frames, __u32 max, struct vh_walked *walked);

#endif
