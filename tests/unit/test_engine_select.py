# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""Which engine ``auto`` takes, by what the kernel has."""

import pytest

from vnethash.engines import select
from vnethash.errors import ConfigError, NotPermitted, Unsupported
from vnethash.kernel import probe
from vnethash.kernel.probe import AttachPoint, ProbeResult, State
from vnethash.virtio.hash_types import HashType

STOCK = {"tun device", "libbpf", "steering program", "tc program", "CAP_PERFMON"}


def kernel_with(monkeypatch: pytest.MonkeyPatch, *features: str) -> None:
    """A kernel that has these features and no others."""

    def ask(name: str) -> ProbeResult:
        if name in features:
            return ProbeResult(name, State.AVAILABLE, f"{name} is there")
        return ProbeResult(name, State.UNSUPPORTED, "absent", None, Unsupported(name, "absent"))

    monkeypatch.setattr(probe, "probe", ask)
    monkeypatch.setattr(probe, "best_attach_point", lambda: AttachPoint("tcx", "least cost"))
    monkeypatch.setattr("vnethash.engines.tun_rss.read_hash_types", lambda: HashType(0x3F))


def test_a_stock_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel_with(monkeypatch, *STOCK)
    choice = select.choose()
    assert (choice.name, choice.rejected) == ("ebpf", ())
    assert "tcx" in choice.reason


@pytest.mark.parametrize("name", select.STEERING)
def test_a_steering_program_that_hashes(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    kernel_with(monkeypatch, *STOCK, name)
    assert select.best() == select.Choice(name, f"{name} is there")
    kernel_with(monkeypatch, "tun device", name)  # and no rights for it
    assert select.best().name == "software"


def test_the_driver_only_for_what_it_knows(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel_with(monkeypatch, *STOCK, "tun-rss")
    assert select.best(HashType(0x3F)).name == "tun-rss"
    assert select.best(HashType.TCPv4).name == "tun-rss"
    choice = select.best(HashType.TCPv4 | HashType.TCP_EX)
    assert choice.name == "ebpf"
    assert [name for name, _ in choice.rejected] == ["tun-rss"]
    assert "does not know TCP_EX" in choice.rejected[0][1]
    kernel_with(monkeypatch, "tun device", "tun-rss")
    assert select.best(HashType(0x3F)).name == "tun-rss"  # it needs no BPF
    rejected = select.best().rejected
    assert [name for name, _ in rejected] == ["tun-rss", "ebpf"]


def test_nothing_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel_with(monkeypatch)
    with pytest.raises(Unsupported, match="tun device"):
        select.best()


def test_why_not_the_better_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> AttachPoint:
        raise NotPermitted("look for tcx", "CAP_NET_ADMIN")

    kernel_with(monkeypatch, *STOCK)
    monkeypatch.setattr(probe, "best_attach_point", refuse)
    choice = select.best()
    assert choice.name == "software"
    assert "CAP_NET_ADMIN" in dict(choice.rejected)["ebpf"]


@pytest.mark.parametrize("name", [*select.NAMES, select.PROGRAM])
def test_the_one_asked_for_is_not_questioned(name: str) -> None:
    choice = select.named(name)
    assert choice is not None
    assert choice.name == name == select.engine_named(name).name


def test_who_runs_hash_programs() -> None:
    assert select.choose(program=True).name == "program"
    for name in (*select.STEERING, "program"):
        assert select.choose(name, program=True).name == name
    for name in ("tun-rss", "ebpf", "software"):
        with pytest.raises(ConfigError, match=f"is {name}, which runs no hash program"):
            select.choose(name, program=True)


def test_no_such_engine() -> None:
    with pytest.raises(ConfigError, match=r"must be one of auto, ebpf, .*, not 'magic'"):
        select.choose("magic")
