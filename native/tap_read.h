/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* What a read of a tap queue gives: header, perhaps a record, frame. */
#ifndef VNETHASH_TAP_READ_H
#define VNETHASH_TAP_READ_H

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "core.h"

enum {
	LARGEST = 68 << 10, /* bytes one read() of a tap may fill: a GSO packet and headers */
};

static inline int is_record(const __u8 *at, ssize_t length)
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
static inline void correct_header(struct vnet_hdr *header, int has_record)
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
static inline ssize_t read_packet(int fd, __u32 header, __u8 *buffer, __u64 size)
{
	ssize_t length;

	do
		length = read(fd, buffer, size);
	while (length < 0 && errno == EINTR);
	if (length < 0)
		return errno == EAGAIN ? 0 : -errno;
	return length < header ? -EBADMSG : length;
}

static inline void take_packet(const __u8 *buffer, ssize_t length, int takes_records,
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
static inline void take_reported_header(const __u8 *buffer, struct vnet_hdr *header)
{
	memcpy(header, buffer, VNET_HDR_HASH_LEN);
	if (header->hash_report >= VNET_REPORTS)
		header->hash_report = VNET_REPORT_NONE;
	if (header->hash_report == VNET_REPORT_NONE)
		header->hash_value = 0;
	header->num_buffers = 1;
	header->padding = 0;
}

static inline void take_reported(const __u8 *buffer, ssize_t length, struct vh_packet *packet)
{
	take_reported_header(buffer, &packet->header);
	packet->has_record = packet->header.hash_report != VNET_REPORT_NONE;
	packet->offset = VNET_HDR_HASH_LEN;
	packet->length = length - VNET_HDR_HASH_LEN;
}

#endif
