// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "guard.h"
#include "ring.h"

#define LOAD(at) __atomic_load_n(&(at), __ATOMIC_RELAXED)
#define STORE(at, value) __atomic_store_n(&(at), value, __ATOMIC_RELAXED)

/* Behind the entries of the two rings; virtio 2.7.7 and 2.7.10 */
static __u16 *used_event(const struct ring *ring)
{
	return &ring->avail->ring[ring->size];
}

static __u16 *avail_event(const struct ring *ring)
{
	return (__u16 *)&ring->used->ring[ring->size];
}

int ring_fail(struct ring *ring, enum vh_fault_reason reason, __u64 detail)
{
	ring->fault.reason = reason;
	ring->fault.detail = detail;
	return -1;
}

static void log_used(const struct ring *ring, __u64 offset, __u64 size)
{
	if (ring->logs)
		memory_log(ring->memory, ring->log_address + offset, size);
}

/* One of the three parts of a ring: where it is here. */
static void *find_part(struct ring *ring, __u64 user_address, __u64 alignment, __u64 size)
{
	void *at;

	if (user_address % alignment) {
		ring_fail(ring, VH_FAULT_ALIGNMENT, user_address);
		return NULL;
	}
	at = memory_of_user(ring->memory, user_address, size);
	/* The pages may be aligned otherwise than the addresses say. */
	if (!at || (__u64)at % alignment) {
		ring_fail(ring, at ? VH_FAULT_ALIGNMENT : VH_FAULT_ADDRESS, user_address);
		return NULL;
	}
	return at;
}

/* A write must not wait for a reader who does not read. */
static int prepare_notifier(struct ring *ring, struct notifier *notifier, int fd)
{
	struct stat file;
	int flags;

	notifier->fd = fd;
	if (fd < 0)
		return 0;
	if (fstat(fd, &file) < 0)
		return ring_fail(ring, VH_FAULT_SYSTEM, errno);
	notifier->is_socket = S_ISSOCK(file.st_mode);
	flags = fcntl(fd, F_GETFL);
	if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0)
		return ring_fail(ring, VH_FAULT_SYSTEM, errno);
	return 0;
}

int ring_start(struct ring *ring, struct vh_memory *memory, const struct vh_ring_setup *setup,
		enum vh_fault_queue queue)
{
	__u64 size = setup->size;
	sigjmp_buf out;

	*ring = (struct ring){
		.memory = memory,
		.size = setup->size,
		.next = setup->base,
		.available = setup->base,
		.base = setup->base,
		.hears_kicks = 1,
		.event_idx = setup->event_idx,
		.indirect = setup->indirect,
		.logs = setup->logs && memory->log,
		.log_address = setup->log_address,
		.fault.queue = queue,
	};
	if (!size || size > VH_RING_MAX || size & (size - 1))
		return ring_fail(ring, VH_FAULT_SIZE, size);
	ring->table = find_part(ring, setup->descriptors, 16, 16 * size);
	if (!ring->table)
		return -1;
	ring->avail = find_part(ring, setup->available, 2, 6 + 2 * size);
	if (!ring->avail)
		return -1;
	ring->used = find_part(ring, setup->used, 4, 6 + 8 * size);
	if (!ring->used || prepare_notifier(ring, &ring->call, setup->call) < 0 ||
	    prepare_notifier(ring, &ring->error, setup->error) < 0)
		return -1;
	if (GUARD(out)) {
		guard_end();
		return ring_fail(ring, VH_FAULT_MEMORY, 0);
	}
	ring->use = ring->published = ring->called = LOAD(ring->used->idx);
	STORE(ring->used->flags, 0);
	log_used(ring, 0, 4);
	ring_want_kicks(ring); /* of what is there already nobody may have told */
	guard_end();
	return 0;
}

/* How many chains wait to be fetched, -1 after a fault. */
static int waiting(struct ring *ring)
{
	__u16 available;

	if (ring->available != ring->next)
		return (__u16)(ring->available - ring->next);
	available = __atomic_load_n(&ring->avail->idx, __ATOMIC_ACQUIRE);
	if ((__u16)(available - ring->base) > ring->size)
		return ring_fail(ring, VH_FAULT_AVAILABLE, available);
	ring->available = available;
	return (__u16)(available - ring->next);
}

/* Read a descriptor once, so that what was checked is what is used. */
static inline struct vring_desc load_descriptor(const struct vring_desc *from)
{
	struct vring_desc descriptor;
	__u64 words[2];

	words[0] = __atomic_load_n((const __u64 *)from, __ATOMIC_RELAXED);
	words[1] = __atomic_load_n((const __u64 *)from + 1, __ATOMIC_RELAXED);
	memcpy(&descriptor, words, sizeof(descriptor));
	return descriptor;
}

/* Append what a descriptor describes: one span, or several if regions meet in it. */
static inline int add_buffer(struct ring *ring, struct chain *chain, struct iovec *spans,
			     const struct vring_desc *descriptor)
{
	__u64 address = descriptor->addr, left = descriptor->len;

	if (descriptor->flags & VRING_DESC_F_WRITE)
		chain->writable_length += left;
	else if (chain->writable) /* virtio 2.7.4.2: writable ones come last */
		return ring_fail(ring, VH_FAULT_DIRECTION, chain->head);
	else
		chain->readable_length += left;
	while (left) {
		__u32 count = chain->readable + chain->writable;
		__u64 length = left;
		__u8 *at = memory_at(ring->memory, &ring->last_buffer, address, &length);

		if (!at)
			return ring_fail(ring, VH_FAULT_BUFFER, address);
		if (count == VH_CHAIN_MAX)
			return ring_fail(ring, VH_FAULT_CHAIN, chain->head);
		spans[count] = (struct iovec){ .iov_base = at, .iov_len = length };
		if (descriptor->flags & VRING_DESC_F_WRITE)
			chain->writable++;
		else
			chain->readable++;
		address += length;
		left -= length;
	}
	return 0;
}

/* The chain in an indirect table (virtio 2.7.5.3), which may lie across regions. */
static int walk_indirect(struct ring *ring, struct chain *chain, struct iovec *spans,
			 const struct vring_desc *indirect, __u32 walked)
{
	__u64 length = indirect->len;
	__u32 entries = indirect->len / sizeof(struct vring_desc);
	struct vring_desc descriptor;
	const __u8 *table;
	__u32 index = 0;

	if (!ring->indirect || !entries || indirect->len % sizeof(struct vring_desc) ||
	    indirect->flags & VRING_DESC_F_NEXT)
		return ring_fail(ring, VH_FAULT_INDIRECT, indirect->len);
	table = memory_at(ring->memory, &ring->last_table, indirect->addr, &length);
	if (!table)
		return ring_fail(ring, VH_FAULT_BUFFER, indirect->addr);
	if (length < indirect->len || (__u64)table % sizeof(__u64))
		table = NULL; /* not in one piece, or words would tear */

	for (__u32 seen = walked; seen < VH_CHAIN_MAX && seen - walked < entries; seen++) {
		__u64 address = indirect->addr + index * sizeof(struct vring_desc);

		if (table)
			descriptor = load_descriptor((const struct vring_desc *)table + index);
		else if (!memory_read(ring->memory, address, &descriptor, sizeof(descriptor)))
			return ring_fail(ring, VH_FAULT_BUFFER, address);
		if (descriptor.flags & VRING_DESC_F_INDIRECT)
			return ring_fail(ring, VH_FAULT_INDIRECT, address);
		if (add_buffer(ring, chain, spans, &descriptor) < 0)
			return -1;
		if (!(descriptor.flags & VRING_DESC_F_NEXT))
			return 1;
		index = descriptor.next;
		if (index >= entries)
			return ring_fail(ring, VH_FAULT_NEXT, index);
	}
	return ring_fail(ring, VH_FAULT_CHAIN, chain->head);
}

int ring_fetch(struct ring *ring, struct chain *chain, struct iovec *spans)
{
	__u32 most = ring->size < VH_CHAIN_MAX ? ring->size : VH_CHAIN_MAX;
	struct vring_desc descriptor;
	int count = waiting(ring);
	__u32 index;

	if (count <= 0)
		return count;
	index = LOAD(ring->avail->ring[ring->next & (ring->size - 1)]);
	*chain = (struct chain){ .head = index };
	if (index >= ring->size)
		return ring_fail(ring, VH_FAULT_HEAD, index);
	ring->next++;
	for (__u32 walked = 0; walked < most; walked++) {
		descriptor = load_descriptor(&ring->table[index]);
		chain->descriptors++;
		if (descriptor.flags & VRING_DESC_F_INDIRECT)
			return walk_indirect(ring, chain, spans, &descriptor, walked);
		if (add_buffer(ring, chain, spans, &descriptor) < 0)
			return -1;
		if (!(descriptor.flags & VRING_DESC_F_NEXT))
			return 1;
		index = descriptor.next;
		if (index >= ring->size)
			return ring_fail(ring, VH_FAULT_NEXT, index);
	}
	return ring_fail(ring, VH_FAULT_CHAIN, chain->head);
}

void ring_log_spans(const struct ring *ring, const struct iovec *spans, __u64 length)
{
	for (; length; spans++) {
		__u64 size = spans->iov_len < length ? spans->iov_len : length;

		memory_log_host(ring->memory, spans->iov_base, size);
		length -= size;
	}
}

void ring_use(struct ring *ring, __u16 head, __u32 length)
{
	__u32 entry = ring->use & (ring->size - 1);

	ring->used->ring[entry] = (struct vring_used_elem){ .id = head, .len = length };
	log_used(ring, offsetof(struct vring_used, ring) + entry * sizeof(struct vring_used_elem),
		 sizeof(struct vring_used_elem));
	ring->use++;
	ring->base++;
}

/* Whether the driver wants to hear of what was published since it was told last. */
static int wants_call(struct ring *ring)
{
	__u16 from = ring->called;
	int told = ring->has_called;

	/* The index is seen before the driver's wish is read; virtio 2.7.13.4.1 */
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	if (!ring->event_idx)
		return !(LOAD(ring->avail->flags) & VRING_AVAIL_F_NO_INTERRUPT);
	ring->called = ring->published;
	ring->has_called = 1;
	return !told || vring_need_event(LOAD(*used_event(ring)), ring->published, from);
}

static void notify(const struct notifier *notifier)
{
	const __u64 one = 1;
	ssize_t written;

	/* Full: it has been told often enough. Closed: nobody is there to hear. */
	if (notifier->is_socket)
		written = send(notifier->fd, &one, sizeof(one), MSG_DONTWAIT | MSG_NOSIGNAL);
	else
		written = write(notifier->fd, &one, sizeof(one));
	(void)written;
}

int ring_publish(struct ring *ring)
{
	if (ring->published == ring->use)
		return 0;
	ring->published = ring->use;
	__atomic_store_n(&ring->used->idx, ring->use, __ATOMIC_RELEASE);
	log_used(ring, offsetof(struct vring_used, idx), sizeof(ring->used->idx));
	if (!wants_call(ring) || ring->call.fd < 0)
		return 0;
	notify(&ring->call);
	return 1;
}

int ring_want_kicks(struct ring *ring)
{
	if (ring->event_idx) {
		STORE(*avail_event(ring), ring->available);
		log_used(ring, (__u8 *)avail_event(ring) - (__u8 *)ring->used, 2);
	} else if (!ring->hears_kicks) {
		STORE(ring->used->flags, 0);
		log_used(ring, 0, 2);
	}
	ring->hears_kicks = 1;
	/* The wish is seen before the index is read. */
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	return LOAD(ring->avail->idx) != ring->available;
}

void ring_no_kicks(struct ring *ring)
{
	/* An event index left behind brings no kick for a round of 65536. */
	if (ring->hears_kicks && !ring->event_idx) {
		STORE(ring->used->flags, VRING_USED_F_NO_NOTIFY);
		log_used(ring, 0, 2);
	}
	ring->hears_kicks = 0;
}

void ring_announce_fault(const struct ring *ring)
{
	if (ring->error.fd >= 0)
		notify(&ring->error);
}
