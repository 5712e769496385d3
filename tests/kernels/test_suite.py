# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""One BPF object and one list of tests, on every kernel that can be had here."""

import hashlib
import os
from collections.abc import Mapping
from typing import Any

import pytest

from tests.guest.kernel_tests import AT_LEAST
from tests.kernels import page
from tests.kernels.kernels import KERNELS, Kernel, answer
from vnethash.native import STAGES_OBJECT

pytestmark = pytest.mark.usefixtures("booting")

# What a test may be skipped for, and the probe that has to agree that it is not there.
PROBES = {"tcx not supported": "tcx", "USO not supported": "USO offloads"}

# Seconds the verifier may take for one program. An emulated CPU is many times slower
# than those that run programs; there it is in the table, for what it is worth.
VERIFIER = 1.0


@pytest.fixture(name="kernel", params=KERNELS, ids=lambda kernel: kernel.name)
def _kernel(request: pytest.FixtureRequest) -> Kernel:
    kernel: Kernel = request.param
    if reason := kernel.missing():
        if os.environ.get("VNETHASH_REQUIRE_KERNEL"):
            pytest.fail(reason)
        pytest.skip(reason)
    return kernel


@pytest.fixture(name="told")
def _told(kernel: Kernel) -> Mapping[str, Any]:
    return answer(kernel)


def test_kernel_tests_pass(told: Mapping[str, Any]) -> None:
    suite = told["suite"]
    assert suite["failed"] == []
    assert suite["total"]["passed"] >= AT_LEAST


def test_only_what_the_kernel_lacks_is_skipped(told: Mapping[str, Any]) -> None:
    absent = {words for words, probe in PROBES.items() if probe in page.lacking(told)}
    skipped = told["suite"]["skipped"]
    assert [reason for reason in skipped if not any(words in reason for words in absent)] == []


def test_attaches_where_this_kernel_can(kernel: Kernel, told: Mapping[str, Any]) -> None:
    point = told["probe"]["attach_point"]["name"]
    assert point is not None
    assert point == (kernel.point or point)
    assert told["probe"]["engine"]["name"] == "ebpf"


def test_it_is_one_object(told: Mapping[str, Any]) -> None:
    here = hashlib.sha256(STAGES_OBJECT.read_bytes()).hexdigest()
    assert told["facts"]["objects"][STAGES_OBJECT.name] == here


def test_verifier_is_quick(kernel: Kernel, told: Mapping[str, Any]) -> None:
    took = {
        f"{loaded['object']}, {name}": program["verifier_seconds"]
        for loaded in told["probe"]["verifier"]
        for name, program in loaded["programs"].items()
    }
    assert len(took) > 10
    if not kernel.name.endswith("-qemu"):
        assert {name: seconds for name, seconds in took.items() if seconds > VERIFIER} == {}
