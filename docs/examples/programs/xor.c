// SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0
/*
 * Three lines that flip bits of "no hash, queue 0": every packet has hash 3,
 * type 2, queue 1. Shows at a glance that a packet went through a program of
 * your own; and it is what the program type that was proposed for the kernel
 * was tested with.
 */
#include <vnet_hash.h>

VNET_HASH_PROGRAM(frame, verdict)
{
	verdict->hash_value ^= 3;
	verdict->hash_report ^= 2;
	verdict->queue ^= 1;
}
