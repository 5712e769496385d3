/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/*
 * What the benchmarks run in C: the loops that bulk hashing is measured
 * against (scalar.c) and a sender that costs little (traffic.c). The build
 * hook feeds this file, without its preprocessor lines, to cffi.
 */
#ifndef VNETHASH_BENCH_H
#define VNETHASH_BENCH_H

#include <stddef.h>
#include <stdint.h>

#pragma GCC visibility push(default)

int scalar_hash(const uint8_t *key, const uint8_t *tuples, size_t count, size_t length,
		uint32_t *hashes);
int copy_xor(const uint8_t *tuples, size_t count, size_t length, uint8_t *copy, uint32_t *sums);

int send_burst(const int *fds, uint32_t fd_count, const uint8_t *messages, uint32_t message_count,
	       size_t length, uint32_t burst);

#pragma GCC visibility pop

#endif
