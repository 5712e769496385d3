# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""What a backend tells whoever runs it."""

from collections.abc import Callable, Mapping
from typing import Any

Journal = Callable[[str, Mapping[str, Any]], object]
"""Takes the name of an event and its values, which are JSON types.

listening     socket, tap, engine, queue_pairs, features
connected     pid of the front end
refused       a message that was answered with failure: reason
features      those negotiated; imported: with the state the driver had elsewhere
queues        in_use
control       command, answer ("ok" or "refused"), reason if refused
fault         queue, reason
balanced      what Step.to_json() of balancer.py gives: imbalance, expected, moves
disconnected  reason
"""
