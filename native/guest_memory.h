/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* Guest memory, mapped here, and its dirty log. */
#ifndef VNETHASH_GUEST_MEMORY_H
#define VNETHASH_GUEST_MEMORY_H

#include <stddef.h>

#include "vhost.h"

struct memory_region {
	__u64 guest_address;
	__u64 size;
	__u64 user_address;
	__u8 *host;
	void *mapping; /* whole pages, from before `host` on */
	size_t mapped;
};

struct vh_memory {
	__u32 references;
	__u32 count;
	__u8 *log; /* NULL: nobody asks what was written */
	__u64 log_size;
	void *log_mapping;
	size_t log_mapped;
	struct memory_region regions[]; /* by guest address */
};

struct vh_memory *memory_get(struct vh_memory *memory); /* one reference more */

/* The region that holds the address; NULL: no memory there. */
const struct memory_region *memory_find(const struct vh_memory *memory, __u64 guest_address);

/* `size` bytes that the front end has at `user_address`, NULL unless in one region. */
void *memory_of_user(const struct vh_memory *memory, __u64 user_address, __u64 size);

/* Copy out of guest memory, across regions. Returns whether all of it was there. */
int memory_read(const struct vh_memory *memory, __u64 guest_address, void *to, __u64 size);

void memory_log(const struct vh_memory *memory, __u64 guest_address, __u64 size);
void memory_log_host(const struct vh_memory *memory, const void *host, __u64 size);

/*
 * Where the guest's `address` is here. `*length` is cut to what the region
 * holds from there. `*last` is the region met last, or NULL.
 */
static inline __u8 *memory_at(const struct vh_memory *memory, const struct memory_region **last,
			      __u64 address, __u64 *length)
{
	const struct memory_region *region = *last;
	__u64 offset;

	if (!region || address - region->guest_address >= region->size) {
		region = memory_find(memory, address);
		if (!region)
			return NULL;
		*last = region;
	}
	offset = address - region->guest_address;
	if (*length > region->size - offset)
		*length = region->size - offset;
	return region->host + offset;
}

#endif
