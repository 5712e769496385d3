// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
/* Packets and bytes of each column in windows of time. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "timeline.h"

enum {
	ROWS_MIN = 16,
	ROWS_MAX = 1024,
	CELLS = 1 << 19,
};

int timeline_init(struct timeline *timeline, __u32 columns, __s64 length_ns)
{
	__u32 rows = CELLS / columns;

	rows = rows < ROWS_MIN ? ROWS_MIN : rows > ROWS_MAX ? ROWS_MAX : rows;
	*timeline = (struct timeline){
		.length_ns = length_ns,
		.columns = columns,
		.rows_max = rows,
		.window = calloc(rows, sizeof(*timeline->window)),
		/* Pages of it that are never written take no memory. */
		.traffic = calloc((__u64)rows * columns, sizeof(*timeline->traffic)),
		.untimed = calloc(columns, sizeof(*timeline->untimed)),
	};
	if (!timeline->window || !timeline->traffic || !timeline->untimed)
		return -ENOMEM;
	for (__u32 row = 0; row < rows; row++)
		timeline->window[row].row = row;
	return 0;
}

void timeline_free(struct timeline *timeline)
{
	free(timeline->window);
	free(timeline->traffic);
	free(timeline->untimed);
}

static __s64 floor_divide(__s64 number, __s64 by)
{
	return number / by - (number % by < 0);
}

/* The first of the windows, in the order of time, that is not before `number`. */
static __u32 first_from(const struct timeline *timeline, __s64 number)
{
	__u32 low = 0, high = timeline->rows;

	while (low < high) {
		__u32 middle = (low + high) / 2;

		if (timeline->window[middle].number < number)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

/* How many windows make up one after so many steps. */
static __s64 factor_after(__u32 steps)
{
	return steps % 2 ? 5 : 2;
}

static void longer(struct timeline *timeline)
{
	__s64 factor = factor_after(timeline->steps++);
	__u32 kept = 0, freed = 0, columns = timeline->columns;
	__u32 free_rows[ROWS_MAX];

	timeline->length_ns *= factor;
	timeline->last = NULL;
	for (__u32 i = 0; i < timeline->rows; i++) {
		struct window window = timeline->window[i];
		struct vnet_traffic *from = timeline->traffic + (__u64)window.row * columns, *to;

		window.number = floor_divide(window.number, factor);
		if (!kept || timeline->window[kept - 1].number != window.number) {
			timeline->window[kept++] = window;
			continue;
		}
		to = timeline->traffic + (__u64)timeline->window[kept - 1].row * columns;
		for (__u32 column = 0; column < columns; column++) {
			to[column].packets += from[column].packets;
			to[column].bytes += from[column].bytes;
		}
		memset(from, 0, columns * sizeof(*from));
		free_rows[freed++] = window.row;
	}
	/* Behind the windows in use lie the rows that are free. */
	for (__u32 i = 0; i < freed; i++)
		timeline->window[kept + i].row = free_rows[i];
	timeline->rows = kept;
}

int timeline_coarsen(struct timeline *timeline, __s64 length_ns)
{
	__s64 length = timeline->length_ns;
	__u32 steps = timeline->steps;

	/* Of windows longer than that, few are enough for all times: none becomes longer. */
	while (length < length_ns && length <= VH_TIME_MAX / 5)
		length *= factor_after(steps++);
	if (length_ns < 1 || length % length_ns)
		return -EINVAL;
	while (timeline->steps < steps)
		longer(timeline);
	return 0;
}

struct vnet_traffic *timeline_find(struct timeline *timeline, __s64 time_ns)
{
	for (;;) {
		__s64 number = floor_divide(time_ns, timeline->length_ns);
		__u32 at = first_from(timeline, number), row;

		if (at == timeline->rows || timeline->window[at].number != number) {
			if (timeline->rows == timeline->rows_max) {
				longer(timeline);
				continue;
			}
			row = timeline->window[timeline->rows].row;
			memmove(timeline->window + at + 1, timeline->window + at,
				(timeline->rows - at) * sizeof(*timeline->window));
			timeline->window[at] = (struct window){ .number = number, .row = row };
			timeline->rows++;
		}
		timeline->last_start = number * timeline->length_ns;
		timeline->last =
			timeline->traffic + (__u64)timeline->window[at].row * timeline->columns;
		return timeline->last;
	}
}
