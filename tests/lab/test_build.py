# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""The kernels that `vnethash lab build` makes are what was asked for."""

import time
from collections.abc import Mapping

from vnethash.lab import uml
from vnethash.lab.build import build
from vnethash.lab.kernels import BuiltKernel
from vnethash.lab.options import SHARED, STOCK, options


def test_every_option_is_built(lab: Mapping[str, BuiltKernel]) -> None:
    assert lab.keys() == {option.name for option in options()}
    assert len({kernel.key for kernel in lab.values()}) == len(lab)


def test_configuration_is_followed(lab: Mapping[str, BuiltKernel]) -> None:
    refused = {name: kernel.manifest["config_refused"] for name, kernel in lab.items()}
    assert refused == {name: [] for name in lab}


def test_each_has_the_patches_of_its_option(lab: Mapping[str, BuiltKernel]) -> None:
    for name, kernel in lab.items():
        patches = kernel.manifest["made_from"]["patches"]
        folders = list(dict.fromkeys(patch["name"].split("/")[0] for patch in patches))
        assert folders == ([] if name == STOCK else [*SHARED, name])


def test_each_boots_and_says_which_it_is(lab: Mapping[str, BuiltKernel]) -> None:
    for name, kernel in lab.items():
        result = uml.run(kernel.kernel, ["uname", "-r"], timeout=30, mem="128M")
        assert result.output == f"{kernel.release}\n"
        assert kernel.release.endswith(f"-{name}")


def test_binaries_are_small_and_have_types(lab: Mapping[str, BuiltKernel]) -> None:
    for kernel in lab.values():
        assert kernel.size < 40 << 20
        command = ["test", "-s", "/sys/kernel/btf/vmlinux"]
        assert uml.run(kernel.kernel, command, timeout=30, mem="128M").exit_status == 0


def test_second_build_builds_nothing(lab: Mapping[str, BuiltKernel]) -> None:
    fresh: list[bool] = []
    begun = time.monotonic()
    build(options(), done=lambda _, new: fresh.append(new))
    assert time.monotonic() - begun < 1
    assert fresh == [False] * len(lab)
