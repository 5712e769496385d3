/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/*
 * What reading captures is measured against: a plain loop over a pcap file of
 * this machine's byte order, as one writes it in an afternoon, that takes
 * addresses and ports out of Ethernet, IPv4 and TCP or UDP headers and adds
 * them up. It hashes nothing, keeps no flows, and believes every length.
 */
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "bench.h"

static uint32_t word_at(const uint8_t *at)
{
	uint32_t word;

	memcpy(&word, at, sizeof(word));
	return word;
}

/* Packets, or -1. `sum`: something that depends on all of them. */
int64_t capture_loop(const char *path, uint32_t *sum)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	const uint8_t *file, *at, *end;
	int64_t packets = 0;
	struct stat stat;

	if (fd < 0 || fstat(fd, &stat))
		return -1;
	file = mmap(NULL, stat.st_size, PROT_READ, MAP_PRIVATE | MAP_POPULATE, fd, 0);
	close(fd);
	if (file == MAP_FAILED)
		return -1;
	*sum = 0;
	end = file + stat.st_size;
	for (at = file + 24; at < end; packets++) {
		uint32_t length = word_at(at + 8);
		const uint8_t *frame = at + 16, *ip = frame + 14;

		at = frame + length;
		if (length < 14 + 20 || frame[12] != 8 || frame[13] != 0 || ip[0] >> 4 != 4)
			continue;
		*sum += word_at(ip + 12) ^ word_at(ip + 16);
		if (ip[9] == 6 || ip[9] == 17)
			*sum ^= word_at(ip + (ip[0] & 15) * 4);
	}
	munmap((void *)file, stat.st_size);
	return packets;
}
