// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
/* Flows, each once, with what was counted of it. */
#define _GNU_SOURCE
#include <errno.h>
#include <sys/mman.h>
#include <sys/random.h>

#include "flows.h"

enum {
	ROOM = 1024, /* flows at first */
};

/* Fresh memory is zero, and what is not touched takes no room. */
static void *map(__u64 bytes)
{
	void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	return memory == MAP_FAILED ? NULL : memory;
}

int flows_init(struct flows *flows)
{
	*flows = (struct flows){ .room = ROOM, .slots = 2 * ROOM };
	if (getrandom(flows->seed, sizeof(flows->seed), 0) != sizeof(flows->seed))
		return -errno;
	flows->flow = map(flows->room * sizeof(*flows->flow));
	flows->slot = map(flows->slots * sizeof(*flows->slot));
	return flows->flow && flows->slot ? 0 : -ENOMEM;
}

void flows_free(struct flows *flows)
{
	if (flows->flow)
		munmap(flows->flow, flows->room * sizeof(*flows->flow));
	if (flows->slot)
		munmap(flows->slot, flows->slots * sizeof(*flows->slot));
}

static int is_same(const struct vh_flow *one, const struct vh_flow *other)
{
	__u64 differs = one->kind ^ other->kind;

	for (__u32 word = 0; word < 4; word++)
		differs |= flow_word(one, word) ^ flow_word(other, word);
	return !(differs | (vnet_u32(one->ports) ^ vnet_u32(other->ports)));
}

__u32 flows_find(struct flows *flows, __u64 place, const struct vh_flow *flow, int *is_new)
{
	__u64 mask = flows->slots - 1;
	__u32 tag = place >> 32;

	for (__u64 at = place & mask;; at = (at + 1) & mask) {
		struct flow_slot *slot = flows->slot + at;

		*is_new = !slot->flow;
		if (*is_new) {
			flows->flow[flows->count++] = *flow;
			*slot = (struct flow_slot){ .tag = tag, .flow = flows->count };
			return flows->count - 1;
		}
		if (slot->tag == tag && is_same(flows->flow + slot->flow - 1, flow))
			return slot->flow - 1;
	}
}

static int more_slots(struct flows *flows, __u64 slots)
{
	struct flow_slot *slot = map(slots * sizeof(*slot));

	if (!slot)
		return -ENOMEM;
	for (__u64 i = 0; i < flows->slots; i++) {
		const struct flow_slot *old = flows->slot + i;
		__u64 at;

		if (!old->flow)
			continue;
		at = flows_place(flows, flows->flow + old->flow - 1) & (slots - 1);
		while (slot[at].flow)
			at = (at + 1) & (slots - 1);
		slot[at] = *old;
	}
	munmap(flows->slot, flows->slots * sizeof(*slot));
	flows->slot = slot;
	flows->slots = slots;
	return 0;
}

int flows_reserve(struct flows *flows, __u64 more)
{
	__u64 need = flows->count + more, room = flows->room, size = sizeof(*flows->flow);
	void *flow;

	if (need > 1ull << 31) /* their numbers are 32 bits wide */
		return -ENOMEM;
	while (room < need)
		room *= 2;
	if (room > flows->room) {
		flow = mremap(flows->flow, flows->room * size, room * size, MREMAP_MAYMOVE);
		if (flow == MAP_FAILED)
			return -ENOMEM;
		flows->flow = flow;
		flows->room = room;
	}
	return 2 * room > flows->slots ? more_slots(flows, 2 * room) : 0;
}
