# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""What this kernel and these rights allow, found out by trying.

Nothing is decided by a version number, and nothing a probe makes is left
behind: devices are made in a network namespace that ends with the probe.
"""

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple

from vnethash.errors import (
    BpfError,
    DependencyMissing,
    DeviceError,
    NotPermitted,
    Unsupported,
    VnethashError,
)
from vnethash.kernel import bpffs, btf, caps, libbpf, netns, tc
from vnethash.kernel.borrow import take_fd
from vnethash.kernel.bpf import Program, ProgramType
from vnethash.kernel.caps import Cap
from vnethash.kernel.egress import CLSACT, TCX
from vnethash.kernel.tcx import attach_tcx
from vnethash.kernel.tun import Offload, TunDevice, TunFlag, read_features
from vnethash.kernel.tun_ioctl import read_hash_types
from vnethash.virtio.hash_types import format_hash_types

_NO_SUCH_IFINDEX = 0x7FFFFFFF
_CB = "tun-cb"
_KFUNC = "bpf_tun_set_hash"
_LAB = "a kernel of the lab: vnethash lab build"
_RETURN_0 = [(0xB7, 0, 0, 0), (0x95, 0, 0, 0)]  # r0 = 0; exit


class State(StrEnum):
    """What a probe found out, if anything."""

    AVAILABLE = "available"
    UNSUPPORTED = "unsupported"
    INCONCLUSIVE = "inconclusive"


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """One feature: ``reason`` says how it is there, or why not; ``needs`` what has it."""

    name: str
    state: State
    reason: str
    needs: str | None = None
    error: VnethashError | None = None

    def __bool__(self) -> bool:
        return self.state == State.AVAILABLE


class AttachPoint(NamedTuple):
    """Where the hash stage goes: ``name`` is TCX, CLSACT, or None if nowhere."""

    name: str | None
    reason: str


# A check returns what is to be said of a feature that is there. One that is
# not raises Unsupported or DependencyMissing; any other error leaves it open.
_Check = Callable[[], str]
_CHECKS: dict[str, _Check] = {}
_VOLATILE: set[str] = set()
_known: dict[str, ProbeResult] = {}


def _probe(name: str, *, volatile: bool = False) -> Callable[[_Check], _Check]:
    """Register a check; a ``volatile`` one may answer otherwise next time."""

    def register(check: _Check) -> _Check:
        _CHECKS[name] = check
        if volatile:
            _VOLATILE.add(name)
        return check

    return register


def names() -> list[str]:
    """What can be probed."""
    return list(_CHECKS)


def probe(name: str) -> ProbeResult:
    """Probe one feature; what was found out before is not asked again."""
    if name in _known:
        return _known[name]
    return _keep(_ask(name, _CHECKS[name]))


def _keep(result: ProbeResult) -> ProbeResult:
    if result.state != State.INCONCLUSIVE and result.name not in _VOLATILE:
        _known[result.name] = result
    return result


def require(name: str) -> ProbeResult:
    """The answer for a feature that is there; raises what speaks against it."""
    result = probe(name)
    if not result:
        raise result.error or VnethashError(f"{name}: {result.reason}")
    return result


def of_lab(name: str, device: TunDevice | None = None) -> ProbeResult:
    """As probe(), for a way of the lab; a tap that is there makes it quicker for one of them."""
    if name == _CB and device is not None and name not in _known:
        return _keep(_ask(name, lambda: _steering_hash(device)))
    return probe(name)


def probe_all() -> list[ProbeResult]:
    """Probe everything."""
    return [probe(name) for name in _CHECKS]


def forget() -> None:
    """Ask anew from now on."""
    _known.clear()
    libbpf.load.cache_clear()


def _ask(name: str, check: _Check) -> ProbeResult:
    try:
        return ProbeResult(name, State.AVAILABLE, check())
    except Unsupported as error:
        return ProbeResult(name, State.UNSUPPORTED, error.reason, error.needs or error.hint, error)
    except DependencyMissing as error:
        return ProbeResult(name, State.UNSUPPORTED, error.message, error.hint, error)
    except VnethashError as error:
        return ProbeResult(name, State.INCONCLUSIVE, error.message, error.hint, error)


def best_attach_point() -> AttachPoint:
    """Where the hash stage is attached on this kernel.

    Raises Unsupported if it has no tc egress BPF at all, and what kept the
    probes from finding out (NotPermitted, DependencyMissing).
    """
    tcx = probe("tcx")
    if tcx:
        return AttachPoint(TCX, "a BPF link: pinned as a whole, no qdisc, least cost")
    if tcx.state == State.INCONCLUSIVE and tcx.error is not None:
        raise tcx.error
    clsact = probe("clsact")
    if clsact:
        return AttachPoint(CLSACT, f"no tcx: {tcx.reason}")
    if clsact.state == State.INCONCLUSIVE and probe("tc program"):
        return AttachPoint(CLSACT, f"no tcx: {tcx.reason}; not tried: {clsact.reason}")
    raise clsact.error or tcx.error or VnethashError("no attach point was found")


@_probe("tun device")
def _tun_device() -> str:
    read_features()
    return "/dev/net/tun opens"


@_probe("multi-queue tap")
def _multi_queue() -> str:
    features = read_features()
    if TunFlag.MULTI_QUEUE not in features or TunFlag.VNET_HDR not in features:
        raise Unsupported(
            "multi-queue tap", "the tun driver has no IFF_MULTI_QUEUE", needs="Linux 3.8"
        )
    return "IFF_MULTI_QUEUE and IFF_VNET_HDR"


@_probe("12-byte header")
def _header_size() -> str:
    with _tap() as tap:
        tap.set_vnet_header_size(12)
        if (size := tap.vnet_header_size) != 12:
            raise Unsupported("12-byte header", f"TUNSETVNETHDRSZ set {size} bytes")
    return "TUNSETVNETHDRSZ takes it"


@_probe("USO offloads")
def _uso() -> str:
    with _tap() as tap:
        tap.set_offloads(Offload.CSUM | Offload.USO4 | Offload.USO6)
    return "TUNSETOFFLOAD takes USO4 and USO6"


@_probe("libbpf")
def _libbpf() -> str:
    major, minor = libbpf.load().version
    return f"version {major}.{minor}"


@_probe("tc program")
def _tc_program() -> str:
    with _program(ProgramType.SCHED_CLS):
        return "a program of two instructions loads"


@_probe("steering program")
def _steering_program() -> str:
    with _program(ProgramType.SOCKET_FILTER):
        return "a socket filter of two instructions loads"


@_probe("steering of a tap")
def _steering_of_a_tap() -> str:
    with _tap() as tap, _program(ProgramType.SOCKET_FILTER) as program:
        tap.set_steering(program.fd)
    return "TUNSETSTEERINGEBPF takes a socket filter"


@_probe("BPF JIT", volatile=True)
def _jit() -> str:
    with _program(ProgramType.SCHED_CLS) as program:
        if not program.jited:
            raise Unsupported(
                "BPF JIT",
                "programs are interpreted, which is several times slower",
                needs="CONFIG_BPF_JIT and net.core.bpf_jit_enable=1",
            )
    return "programs run as machine code"


@_probe("tcx")
def _tcx() -> str:
    # A kernel that knows tcx gets as far as looking for the device.
    with _program(ProgramType.SCHED_CLS) as program:
        try:
            link = attach_tcx(program.fd, _NO_SUCH_IFINDEX)
        except DeviceError:
            return "the kernel knows BPF_TCX_EGRESS"
        link.close()
        raise VnethashError("a link to a device that is not there was made")


@_probe("clsact")
def _clsact() -> str:
    with _program(ProgramType.SCHED_CLS) as program, _tap() as tap:
        tc.detach(tc.attach(program.fd, tap.ifindex))
    return "a filter at the egress of a tap works"


@_probe("bpffs", volatile=True)
def _bpffs() -> str:
    if bpffs.is_mounted():
        return f"mounted at {bpffs.MOUNT_POINT}"
    if "nodev\tbpf" not in Path("/proc/filesystems").read_text().splitlines():
        raise Unsupported("bpffs", "the kernel has no BPF file system", needs="CONFIG_BPF_SYSCALL")
    if not bpffs.MOUNT_POINT.is_dir():
        raise Unsupported("bpffs", f"there is no {bpffs.MOUNT_POINT}", needs="a mounted sysfs")
    if not caps.has(Cap.SYS_ADMIN):
        raise NotPermitted(f"mount a BPF file system at {bpffs.MOUNT_POINT}", Cap.SYS_ADMIN.title)
    return f"not mounted; attach mounts it at {bpffs.MOUNT_POINT}"


@_probe("pidfd_getfd", volatile=True)
def _pidfd_getfd() -> str:
    null = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.close(take_fd(os.getpid(), null))
    except OSError as error:
        if error.errno == errno.ENOSYS:
            raise Unsupported("pidfd_getfd", "no such system call", needs="Linux 5.6") from error
        raise VnethashError(f"pidfd_getfd: {error.strerror}") from error
    finally:
        os.close(null)
    return "descriptors of other processes can be borrowed"


@_probe("vhost-net", volatile=True)
def _vhost_net() -> str:
    if not Path("/dev/vhost-net").exists():
        raise Unsupported("vhost-net", "there is no /dev/vhost-net", needs="modprobe vhost_net")
    return "/dev/vhost-net is there"


@_probe("tun-progtype")
def _tun_progtype() -> str:
    with _program(ProgramType.SOCKET_FILTER):  # or what follows says nothing of the type
        pass
    try:
        with _program(ProgramType.VNET_HASH):
            return "a BPF_PROG_TYPE_VNET_HASH of two instructions loads"
    except BpfError as error:
        reason = "the kernel has no BPF_PROG_TYPE_VNET_HASH"
        raise Unsupported("tun-progtype", reason, needs=_LAB) from error


@_probe("tun-kfunc")
def _tun_kfunc() -> str:
    try:
        there = btf.has_name(_KFUNC)
    except Unsupported as error:
        raise Unsupported("tun-kfunc", error.reason, needs=_LAB) from error
    if not there:
        raise Unsupported("tun-kfunc", f"the kernel has no {_KFUNC}()", needs=_LAB)
    return f"the kernel has {_KFUNC}()"


@_probe(_CB)
def _tun_cb() -> str:
    with _tap() as tap:
        return _steering_hash(tap)


def _steering_hash(tap: TunDevice) -> str:
    if not tap.takes_steering_hash():
        reason = "the tun driver has no TUNSETSTEERINGHASHEBPF"
        raise Unsupported(_CB, reason, needs=_LAB)
    return "the tun driver has TUNSETSTEERINGHASHEBPF"


@_probe("tun-rss")
def _tun_rss() -> str:
    try:
        types = read_hash_types()
    except Unsupported as error:
        raise Unsupported("tun-rss", error.reason, needs=_LAB) from error
    return f"the tun driver hashes {', '.join(format_hash_types(types))}"


def _capability(cap: Cap) -> None:
    @_probe(cap.title, volatile=True)
    def check() -> str:
        if not caps.has(cap):
            raise Unsupported(
                cap.title, "not in the effective set", needs=f"root, or {cap.title} granted"
            )
        return "effective" if cap in caps.effective() else "implied by CAP_SYS_ADMIN"


for _cap in (Cap.NET_ADMIN, Cap.BPF, Cap.PERFMON, Cap.SYS_ADMIN):
    _capability(_cap)


@contextmanager
def _tap() -> Iterator[TunDevice]:
    """A tap with two queues in a network namespace of its own."""
    with netns.fresh(), TunDevice.create(None, 2) as tap:
        yield tap


def _program(kind: ProgramType) -> Program:
    return Program.from_instructions(kind, "vnethash_probe", _RETURN_0)
