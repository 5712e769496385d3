// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "api.h"
#include "guard.h"
#include "guest_memory.h"

/*
 * Map `size` bytes of a file from `offset` on, whole pages of it: the pages of
 * hugetlbfs are what its files call their block size.
 */
static void *map_file(int fd, __u64 offset, __u64 size, void **mapping, size_t *mapped,
		      struct vh_memory_refusal *refusal)
{
	struct stat file;
	__u64 page, start;

	if (fstat(fd, &file) < 0)
		goto refused;
	if (offset + size > (__u64)file.st_size) {
		refusal->error = VH_MEMORY_FILE;
		refusal->detail = file.st_size;
		return NULL;
	}
	page = sysconf(_SC_PAGESIZE);
	if ((__u64)file.st_blksize > page && !(file.st_blksize & (file.st_blksize - 1)))
		page = file.st_blksize;
	start = offset & ~(page - 1);
	*mapped = (offset + size - start + page - 1) & ~(page - 1);
	*mapping = mmap(NULL, *mapped, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fd,
			start);
	if (*mapping != MAP_FAILED)
		return (__u8 *)*mapping + (offset - start);
	*mapping = NULL;
refused:
	refusal->error = VH_MEMORY_MAP;
	refusal->detail = errno;
	return NULL;
}

static int by_guest_address(const void *a, const void *b)
{
	__u64 left = ((const struct memory_region *)a)->guest_address;
	__u64 right = ((const struct memory_region *)b)->guest_address;

	return (left > right) - (left < right);
}

static enum vh_memory_error check_region(const struct vh_region *regions, __u32 index)
{
	const struct vh_region *region = &regions[index];

	if (!region->size)
		return VH_MEMORY_EMPTY;
	if (region->guest_address > ~0ull - region->size ||
	    region->user_address > ~0ull - region->size ||
	    region->mmap_offset > (__u64)INT64_MAX - region->size || region->size > INT64_MAX)
		return VH_MEMORY_OVERFLOW;
	for (__u32 i = 0; i < index; i++) {
		const struct vh_region *other = &regions[i];

		if (region->guest_address < other->guest_address + other->size &&
		    other->guest_address < region->guest_address + region->size)
			return VH_MEMORY_OVERLAP;
		if (region->user_address < other->user_address + other->size &&
		    other->user_address < region->user_address + region->size)
			return VH_MEMORY_OVERLAP;
	}
	return VH_MEMORY_NONE;
}

static int map_log(struct vh_memory *memory, const struct vh_log *log,
		   struct vh_memory_refusal *refusal)
{
	const struct memory_region *last = &memory->regions[memory->count - 1];
	__u64 pages = (last->guest_address + last->size - 1) / VH_LOG_PAGE + 1;

	refusal->region = 0;
	if (log->size < (pages + 7) / 8 || log->offset > (__u64)INT64_MAX - log->size ||
	    log->size > INT64_MAX) {
		refusal->error = VH_MEMORY_LOG;
		refusal->detail = (pages + 7) / 8;
		return 0;
	}
	memory->log_size = log->size;
	memory->log = map_file(log->fd, log->offset, log->size, &memory->log_mapping,
			       &memory->log_mapped, refusal);
	if (refusal->error == VH_MEMORY_FILE)
		refusal->error = VH_MEMORY_LOG;
	return memory->log != NULL;
}

API struct vh_memory *vh_memory_new(const struct vh_region *regions, __u32 count,
				    const struct vh_log *log, struct vh_memory_refusal *refusal)
{
	struct vh_memory *memory;

	*refusal = (struct vh_memory_refusal){};
	if (!count || count > VH_REGIONS_MAX) {
		refusal->error = VH_MEMORY_COUNT;
		return NULL;
	}
	memory = calloc(1, sizeof(*memory) + count * sizeof(memory->regions[0]));
	if (!memory || guard_install() < 0) {
		free(memory);
		refusal->error = VH_MEMORY_MAP;
		refusal->detail = errno;
		return NULL;
	}
	memory->references = 1;
	for (__u32 i = 0; i < count; i++) {
		struct memory_region *region = &memory->regions[i];

		refusal->region = i;
		refusal->error = check_region(regions, i);
		if (refusal->error)
			goto refused;
		region->guest_address = regions[i].guest_address;
		region->size = regions[i].size;
		region->user_address = regions[i].user_address;
		region->host = map_file(regions[i].fd, regions[i].mmap_offset, regions[i].size,
					&region->mapping, &region->mapped, refusal);
		if (!region->host)
			goto refused;
		memory->count++;
	}
	qsort(memory->regions, count, sizeof(memory->regions[0]), by_guest_address);
	if (log && !map_log(memory, log, refusal))
		goto refused;
	return memory;
refused:
	vh_memory_put(memory);
	return NULL;
}

API void vh_memory_put(struct vh_memory *memory)
{
	if (__atomic_sub_fetch(&memory->references, 1, __ATOMIC_ACQ_REL))
		return;
	for (__u32 i = 0; i < memory->count; i++)
		munmap(memory->regions[i].mapping, memory->regions[i].mapped);
	if (memory->log_mapping)
		munmap(memory->log_mapping, memory->log_mapped);
	free(memory);
}

struct vh_memory *memory_get(struct vh_memory *memory)
{
	__atomic_add_fetch(&memory->references, 1, __ATOMIC_RELAXED);
	return memory;
}

const struct memory_region *memory_find(const struct vh_memory *memory, __u64 guest_address)
{
	__u32 low = 0, high = memory->count;

	while (low < high) {
		__u32 middle = (low + high) / 2;
		const struct memory_region *region = &memory->regions[middle];

		if (guest_address < region->guest_address)
			high = middle;
		else if (guest_address - region->guest_address >= region->size)
			low = middle + 1;
		else
			return region;
	}
	return NULL;
}

void *memory_of_user(const struct vh_memory *memory, __u64 user_address, __u64 size)
{
	for (__u32 i = 0; i < memory->count; i++) {
		const struct memory_region *region = &memory->regions[i];
		__u64 offset = user_address - region->user_address;

		if (offset < region->size)
			return size <= region->size - offset ? region->host + offset : NULL;
	}
	return NULL;
}

int memory_read(const struct vh_memory *memory, __u64 guest_address, void *to, __u64 size)
{
	const struct memory_region *last = NULL;

	while (size) {
		__u64 length = size;
		const __u8 *from = memory_at(memory, &last, guest_address, &length);

		if (!from)
			return 0;
		memcpy(to, from, length);
		to = (__u8 *)to + length;
		guest_address += length;
		size -= length;
	}
	return 1;
}

void memory_log(const struct vh_memory *memory, __u64 guest_address, __u64 size)
{
	__u64 last;

	if (!size)
		return;
	last = (guest_address + size - 1) / VH_LOG_PAGE;
	for (__u64 page = guest_address / VH_LOG_PAGE; page <= last; page++) {
		if (page / 8 >= memory->log_size) /* of a log address no guest memory has */
			return;
		__atomic_fetch_or(&memory->log[page / 8], 1 << page % 8, __ATOMIC_RELAXED);
	}
}

void memory_log_host(const struct vh_memory *memory, const void *host, __u64 size)
{
	for (__u32 i = 0; i < memory->count; i++) {
		const struct memory_region *region = &memory->regions[i];
		__u64 offset = (__u64)host - (__u64)region->host;

		if (offset < region->size) {
			memory_log(memory, region->guest_address + offset, size);
			return;
		}
	}
}
