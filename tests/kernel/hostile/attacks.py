# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""All attacks by name."""

import random
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import TypeAlias

from tests.kernel.hostile import memory, messages, notifiers, rings
from tests.kernel.hostile.siege import Siege

Attack: TypeAlias = Callable[[Siege, random.Random, ExitStack], None]
"""What it leaves in the stack stays until it was seen that the server sleeps."""

ATTACKS: Mapping[str, Attack] = {
    attack.__name__: attack
    for attack in (
        messages.trickling_bytes,
        messages.hanging_up,
        messages.out_of_band,
        messages.few_descriptors,
        messages.half_a_message,
        messages.storms,
        messages.unread_replies,
        messages.surplus_descriptors,
        messages.no_messages,
        notifiers.odd_notifiers,
        notifiers.full_notifiers,
        notifiers.toggled_notifiers,
        notifiers.lingering_sockets,
        memory.impossible_regions,
        memory.unaligned_regions,
        memory.too_many_regions,
        memory.replaced_memory,
        memory.truncated_memory,
        memory.punched_memory,
        memory.dirty_logs,
        memory.wild_addresses,
        rings.scribbled_rings,
        rings.restarted_rings,
        rings.entangled_rings,
        rings.begun_anew,
        rings.endless_chains,
        rings.huge_buffers,
        rings.shattered_buffers,
        rings.garbage_to_send,
        rings.flooded_control_queue,
    )
}
