# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
import threading

import pytest

from tests.kernel.least_privilege import RefusedError, with_only
from vnethash.kernel import caps
from vnethash.kernel.caps import Cap


def test_only_what_is_named_is_left() -> None:
    assert with_only({Cap.BPF, Cap.NET_ADMIN}, lambda: sorted(caps.effective())) == [
        Cap.NET_ADMIN,
        Cap.BPF,
    ]
    assert with_only((), lambda: sorted(caps.effective())) == []
    assert caps.has(Cap.SYS_ADMIN)


def test_sys_admin_stands_for_bpf_and_perfmon() -> None:
    def what() -> list[bool]:
        return [caps.has(cap) for cap in (Cap.BPF, Cap.PERFMON, Cap.NET_ADMIN, Cap.SYS_PTRACE)]

    assert with_only({Cap.SYS_ADMIN}, what) == [True, True, False, False]
    assert with_only({Cap.NET_ADMIN}, what) == [False, False, True, False]


def test_what_was_given_up_does_not_come_back() -> None:
    def regain() -> None:
        caps.restrict_to({Cap.NET_ADMIN})

    with pytest.raises(RefusedError, match="restrict capabilities") as caught:
        with_only({Cap.BPF}, regain)
    assert caught.value.kind == "NotPermitted"


def test_other_threads_keep_theirs() -> None:
    left: list[frozenset[int]] = []

    def restrict() -> None:
        caps.restrict_to(())
        left.append(caps.effective())

    thread = threading.Thread(target=restrict)
    thread.start()
    thread.join()
    assert left == [frozenset()]
    assert Cap.NET_ADMIN in caps.effective()


def test_titles() -> None:
    assert Cap.NET_ADMIN.title == "CAP_NET_ADMIN"
