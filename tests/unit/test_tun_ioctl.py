# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""What is checked before the kernel is asked, and what its refusals become."""

import errno
import fcntl
import os

import pytest

from vnethash.errors import ConfigError, DependencyMissing, DeviceError, NotPermitted, Unsupported
from vnethash.kernel import tun_ioctl
from vnethash.kernel.tun import Offload, TunDevice
from vnethash.virtio.hash_types import HashType


@pytest.mark.parametrize("name", ["tap0", "tap%d", "x" * 15, "vm-1.net_0", "ü"])
def test_accepts_a_name(name: str) -> None:
    tun_ioctl.check_name(name)


@pytest.mark.parametrize(
    ("name", "rule"),
    [
        ("", "must not be empty"),
        ("x" * 16, "is longer than 15 bytes"),
        ("ü" * 8, "is longer than 15 bytes"),
        ("a/b", "no link name may have"),
        ("a:b", "no link name may have"),
        ("a b", "no link name may have"),
        ("a\0b", "no link name may have"),
        ("..", "no link name may have"),
        ("tap%s", "is no pattern"),
        ("%d%d", "is no pattern"),
    ],
)
def test_rejects_a_name(name: str, rule: str) -> None:
    with pytest.raises(ConfigError, match=rule) as caught:
        TunDevice.create(name, 2)
    assert caught.value.field == "name"


@pytest.mark.parametrize(
    ("offloads", "rule"),
    [
        (Offload.TSO4, "CSUM must be among them"),
        (Offload.CSUM | Offload.USO6, "USO4 and USO6 go together"),
        (Offload.CSUM | Offload.TSO_ECN, "TSO_ECN needs TSO4 or TSO6"),
    ],
)
def test_rejects_offloads(offloads: Offload, rule: str) -> None:
    with pytest.raises(ConfigError, match=rule):
        TunDevice.create(None, 2, offloads=offloads)


@pytest.mark.parametrize(
    "offloads", [Offload.NONE, Offload.CSUM, Offload.CSUM | Offload.TSO6, Offload.ALL]
)
def test_accepts_offloads(offloads: Offload) -> None:
    tun_ioctl.check_offloads(offloads)


def test_offloads_are_those_of_the_kernel() -> None:
    assert sum(flag for flag in Offload if flag) == Offload.ALL


@pytest.mark.parametrize(
    ("code", "kind", "advice"),
    [
        (errno.ENOENT, DependencyMissing, "modprobe tun"),
        (errno.EACCES, NotPermitted, "--device /dev/net/tun"),
        (errno.EPERM, NotPermitted, "--device /dev/net/tun"),
        (errno.ENODEV, Unsupported, "modprobe tun"),
        (errno.EMFILE, DeviceError, "None"),
    ],
)
def test_why_the_device_does_not_open(
    code: int, kind: type[Exception], advice: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: str, flags: int) -> int:
        raise OSError(code, os.strerror(code), path)

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(kind, match="/dev/net/tun") as caught:
        tun_ioctl.open_queue(nonblocking=True)
    assert advice in str(getattr(caught.value, "hint", None))


def test_a_kernel_without_uso(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(fd: int, request: int, argument: object) -> object:
        raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr("fcntl.ioctl", refuse)
    with pytest.raises(Unsupported) as caught:
        tun_ioctl.set_offloads(3, Offload.ALL)
    assert caught.value.needs == "Linux 6.2"
    with pytest.raises(DeviceError, match="set the offloads of a tap: invalid argument"):
        tun_ioctl.set_offloads(3, Offload.CSUM)


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (errno.EPERM, NotPermitted),
        (errno.EBADFD, DeviceError),
        (errno.ENOTTY, Unsupported),
        (errno.EBUSY, DeviceError),
    ],
)
def test_what_a_refusal_becomes(
    code: int, kind: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(fd: int, request: int, argument: object) -> object:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr("fcntl.ioctl", refuse)
    with pytest.raises(kind, match="set the steering program of a tap"):
        tun_ioctl.set_steering(3, None)


# What kernels of the lab know


def answering(code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(fd: int, request: int, argument: object) -> object:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr("fcntl.ioctl", refuse)


@pytest.mark.parametrize(("code", "known"), [(errno.EBADF, True), (errno.EINVAL, False)])
def test_hashes_of_a_steering_program(
    code: int, known: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    answering(code, monkeypatch)
    assert tun_ioctl.takes_steering_hash(3) is known


def test_a_tap_that_cannot_be_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    answering(errno.EBADFD, monkeypatch)
    with pytest.raises(DeviceError, match="no device is behind this queue"):
        tun_ioctl.takes_steering_hash(3)


@pytest.mark.parametrize("code", [errno.EINVAL, errno.EBADFD, errno.ENOTTY])
def test_a_driver_that_hashes_nothing(code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    answering(code, monkeypatch)
    with pytest.raises(Unsupported, match="TUNGETHASHTYPES"):
        tun_ioctl.read_hash_types(3)


@pytest.mark.parametrize(("report", "request_number"), [(True, 0x400854E6), (False, 0x400854E5)])
def test_rss_as_the_driver_reads_it(
    report: bool, request_number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[int, int, bytes]] = []
    monkeypatch.setattr(fcntl, "ioctl", lambda fd, n, data: asked.append((fd, n, bytes(data))))
    table = [3, 0x201] * 1024  # longer than what ioctl() takes of an immutable argument
    tun_ioctl.set_rss(7, HashType(0x3F), table, 2, bytes(range(40)), report=report)
    wanted = bytes.fromhex("3f000000 ff07 0200") + bytes.fromhex("0300 0102") * 1024
    assert asked == [(7, request_number, wanted + bytes(range(40)))]
