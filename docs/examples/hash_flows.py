# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""Hash a flow, a frame and a batch of a million flows. Needs no rights."""

import numpy as np

from vnethash import Hasher, RssConfig
from vnethash.rss.reference import Protocol, explain_tuple

FRAME = bytes.fromhex(
    "020000000002 020000000001 0800"
    "45000028000040004006 0000 420995bb a18e6450"
    "0aea06e6 00000000 00000000 5002ffff 00000000"
)
"""TCP from 66.9.149.187:2794 to 161.142.100.80:1766."""


def main() -> None:
    rss = RssConfig.default(queues=4)

    # One flow, by the slow reference, which can say why.
    flow = explain_tuple(rss, "66.9.149.187", "161.142.100.80", Protocol.TCP, 2794, 1766)
    got = flow.classified
    print(f"{got.hash_value:#010x} {got.hash_report.name} queue {got.queue}: {flow.reason}")

    # A frame, by the code that runs in the kernel.
    hasher = Hasher(rss)
    assert hasher.classify(FRAME) == got

    # Many flows at once: a row is source, destination, ports, in network order.
    rows = np.random.default_rng(1).integers(0, 256, (1_000_000, 12), dtype=np.uint8)
    rows[0] = np.frombuffer(FRAME[26:38], np.uint8)
    hashes = hasher.hash_batch(rows)
    assert hashes[0] == got.hash_value
    queues = np.array(rss.indirection_table)[hashes & (len(rss.indirection_table) - 1)]
    print("a million flows by queue:", np.bincount(queues).tolist())


if __name__ == "__main__":
    main()
