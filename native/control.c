// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
/* The control queue (virtio 5.1.6.5): commands copied out, answers copied in. */
#include <errno.h>
#include <stdlib.h>

#include "api.h"
#include "guard.h"
#include "ring.h"
#include "span.h"

struct vh_control {
	struct ring ring;
	struct vh_memory *memory;
	struct chain chain; /* of the command that waits for its answer */
	int waits;
	struct iovec spans[VH_CHAIN_MAX];
};

API struct vh_control *vh_control_new(struct vh_memory *memory, const struct vh_ring_setup *setup,
				      struct vh_fault *fault)
{
	struct vh_control *control = calloc(1, sizeof(*control));

	*fault = (struct vh_fault){ .queue = VH_QUEUE_CONTROL, .reason = VH_FAULT_SYSTEM,
				    .detail = ENOMEM };
	if (!control || guard_install() < 0) {
		free(control);
		return NULL;
	}
	if (ring_start(&control->ring, memory, setup, VH_QUEUE_CONTROL) < 0) {
		*fault = control->ring.fault;
		free(control);
		return NULL;
	}
	control->memory = memory_get(memory);
	fault->reason = VH_FAULT_NONE;
	return control;
}

API void vh_control_free(struct vh_control *control)
{
	vh_memory_put(control->memory);
	free(control);
}

/*
 * Under guard, which it ends. The front end shares the files of its eventfds
 * with us, so it may have made them wait again and have filled them: that must
 * not stop the caller.
 */
static int failed(struct vh_control *control)
{
	guard_hurry();
	ring_announce_fault(&control->ring);
	guard_end();
	return -EIO;
}

API int vh_control_receive(struct vh_control *control, __u8 *command, __u32 size)
{
	struct cursor cursor;
	sigjmp_buf out;
	int fetched;

	if (control->ring.fault.reason)
		return -EIO;
	if (control->waits)
		return -EBUSY;
	if (GUARD(out)) {
		ring_fail(&control->ring, VH_FAULT_MEMORY, 0);
		return failed(control);
	}
	fetched = ring_fetch(&control->ring, &control->chain, control->spans);
	if (fetched == 0 && ring_want_kicks(&control->ring))
		fetched = ring_fetch(&control->ring, &control->chain, control->spans);
	if (fetched < 0)
		return failed(control);
	if (fetched == 0) {
		guard_end();
		return -EAGAIN;
	}
	control->waits = 1;
	cursor = (struct cursor){ .span = control->spans,
				  .end = control->spans + control->chain.readable };
	size = cursor_read(&cursor, command, size);
	guard_end();
	return size;
}

API int vh_control_answer(struct vh_control *control, const __u8 *answer, __u32 length)
{
	const struct iovec *spans = control->spans + control->chain.readable;
	struct cursor cursor = { .span = spans, .end = spans + control->chain.writable };
	sigjmp_buf out;
	__u32 written;

	if (control->ring.fault.reason)
		return -EIO;
	if (!control->waits)
		return -EINVAL;
	if (GUARD(out)) {
		ring_fail(&control->ring, VH_FAULT_MEMORY, 0);
		return failed(control);
	}
	written = cursor_write(&cursor, answer, length);
	if (control->memory->log)
		ring_log_spans(&control->ring, spans, written);
	ring_use(&control->ring, control->chain.head, written);
	control->waits = 0;
	guard_hurry();
	ring_publish(&control->ring);
	guard_end();
	return 0;
}

API __u16 vh_control_base(const struct vh_control *control)
{
	return control->ring.base;
}

API void vh_control_fault(const struct vh_control *control, struct vh_fault *fault)
{
	*fault = control->ring.fault;
}
