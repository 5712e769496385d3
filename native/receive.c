// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
/* Reading a queue that the kernel steers to. */
#include "api.h"
#include "history.h"
#include "tap_read.h"

static void count(struct vnet_counters *counters, const struct vh_packet *packet)
{
	struct vnet_traffic *traffic = &counters->by_report[packet->header.hash_report];

	traffic->packets++;
	traffic->bytes += packet->length;
}

API int vh_receive(const struct vh_reader *reader, __u8 *arena, __u64 size,
		   struct vh_packet *packets, __u32 max)
{
	ssize_t length = 0;
	__u64 used = 0;
	__u32 n = 0;
	int records;

	pthread_rwlock_rdlock(&reader->history->lock);
	records = reader->takes_records && history_has_records(reader->history);
	while (n < max && size - used >= LARGEST) {
		struct vh_packet *packet = &packets[n];

		length = read_packet(reader->fd, reader->header, arena + used, size - used);
		if (length <= 0)
			break;
		if (reader->header == VNET_HDR_HASH_LEN)
			take_reported(arena + used, length, packet);
		else
			take_packet(arena + used, length, records, packet);
		packet->offset += used;
		packet->queue = reader->queue;
		if (!packet->has_record && reader->rehashes) {
			struct vnet_frame frame = {
				.data = arena + packet->offset,
				.length = packet->length,
				.is_l3 = reader->is_l3,
			};

			history_rehash(reader->history, reader->queue, &frame, &packet->header);
		}
		if (reader->counters)
			count(reader->counters, packet);
		used = (used + length + 63) & ~63ull;
		n++;
	}
	pthread_rwlock_unlock(&reader->history->lock);
	return n || length >= 0 ? (int)n : (int)length; /* an error comes back next time */
}
