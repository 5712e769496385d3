# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""`vnethash lab compare` measures on every kernel there is."""

from collections.abc import Mapping

from vnethash.engines.select import LAB
from vnethash.lab.compare import measure
from vnethash.lab.kernels import BuiltKernel


def test_everything_is_measured_on_every_kernel(lab: Mapping[str, BuiltKernel]) -> None:
    chosen = {name: kernel.kernel for name, kernel in lab.items()}
    said: list[str] = []
    results = measure.measure(chosen, said.append, quick=True)
    assert results["kernels"].keys() == lab.keys()
    for name, measured in results["kernels"].items():
        assert measured["errors"] == {}
        assert measured["facts"]["release"].endswith(f"-{name}")
        assert measured["suite"]["total"]["passed"] > 0
        works = {engine for engine, told in measured["agreement"].items() if told["works"]}
        assert works == {"ebpf", "software"} | ({name} & set(LAB))
        for engine in works:
            told = measured["agreement"][engine]
            assert all(right == total for right, total in told["groups"].values())
            assert told["vectors"] == [24, 24]
        variants = {row["variant"] for row in measured["cost"]["path"]}
        assert (f"{name} record" in variants) == (name in LAB)
    assert len(said) > len(lab)
