# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""clsact: direct-action BPF filters on a link (tc-bpf(8), net/sched/cls_bpf.c)."""

import errno
import struct
from dataclasses import dataclass
from typing import Any

from vnethash.errors import BpfError, DeviceError, Unsupported
from vnethash.kernel import libbpf, netlink
from vnethash.kernel.caps import Cap

# Filters run by rising priority number and the first that does not return
# TC_ACT_UNSPEC ends the walk: ours is the last.
LAST_PRIORITY = 0xFFFF
HANDLE = 0x766E

# include/uapi/linux/rtnetlink.h, pkt_sched.h, pkt_cls.h
_RTM_GETQDISC = 38
_RTM_GETTFILTER = 46
_TCMSG = struct.Struct("=B3xiIII")
_TCA_KIND = 1
_TCA_OPTIONS = 2
_TCA_BPF_ID = 11
_CLSACT = 0xFFFFFFF1
_INGRESS = 0xFFFFFFF2
_EGRESS = 0xFFFFFFF3
_NEEDS = (Cap.NET_ADMIN, Cap.BPF)


@dataclass(frozen=True, slots=True)
class Filter:
    """A filter on a clsact hook; ``prog_id`` is 0 unless it is a BPF one."""

    priority: int
    handle: int
    kind: str
    prog_id: int


@dataclass(frozen=True, slots=True)
class Attachment:
    """A program attached by clsact; all a later process needs to detach it."""

    ifindex: int
    egress: bool
    priority: int
    handle: int
    made_clsact: bool


def attach(
    program_fd: int,
    ifindex: int,
    *,
    egress: bool = True,
    priority: int = LAST_PRIORITY,
    handle: int = HANDLE,
) -> Attachment:
    """Attach a tc program (BPF_PROG_TYPE_SCHED_CLS), making the clsact qdisc if need be.

    Raises DeviceError if there is no such device, BpfError if the place is
    taken, Unsupported where the kernel lacks clsact or its BPF filter,
    NotPermitted. A failed attach leaves the device as it was.
    """
    hook = _hook(ifindex, egress)
    code = libbpf.attempt("bpf_tc_hook_create", hook)
    if code < 0 and code != -errno.EEXIST:
        raise _refused(ifindex, code, "clsact queueing discipline")
    made = Attachment(ifindex, egress, priority, handle, made_clsact=code == 0)
    opts = _opts(made)
    opts.prog_fd = program_fd
    code = libbpf.attempt("bpf_tc_attach", hook, opts)
    if code < 0:
        error = _refused(ifindex, code, "BPF filter of clsact")
        _remove_clsact(made)
        raise error
    return made


def replace(attachment: Attachment, program_fd: int) -> None:
    """Put another program in the place of the attached one, without a gap."""
    opts = _opts(attachment)
    opts.prog_fd = program_fd
    opts.flags = libbpf.load().lib.BPF_TC_F_REPLACE
    hook = _hook(attachment.ifindex, attachment.egress)
    libbpf.call("replace a tc program", "bpf_tc_attach", hook, opts, needs=_NEEDS)


def detach(attachment: Attachment) -> None:
    """Take the program off; no error if it, or the device, is gone already.

    The clsact qdisc goes too if attach() made it and nothing else is on it.
    """
    hook = _hook(attachment.ifindex, attachment.egress)
    code = libbpf.attempt("bpf_tc_detach", hook, _opts(attachment))
    if code < 0 and -code not in (errno.ENOENT, errno.EINVAL, errno.ENODEV):
        raise libbpf.failure("detach a tc program", code, needs=_NEEDS, said=libbpf.messages())
    _remove_clsact(attachment)


def program_id(attachment: Attachment) -> int | None:
    """Id of the program that is attached there now; None if there is none."""
    where = (attachment.priority, attachment.handle)
    for item in filters(attachment.ifindex, egress=attachment.egress):
        if (item.priority, item.handle) == where:
            return item.prog_id
    return None


def has_clsact(ifindex: int) -> bool:
    """Whether the link has a clsact qdisc. DeviceError if there is no such link.

    Asks for this one: a dump would be of all qdiscs of all links.
    """
    answers = _ask(_RTM_GETQDISC, ifindex, _CLSACT, echo=True)
    kinds = (netlink.attributes(answer[_TCMSG.size :]).get(_TCA_KIND) for answer in answers)
    return b"clsact\0" in kinds


def filters(ifindex: int, *, egress: bool = True) -> list[Filter]:
    """The filters on a link's clsact hook, in the order they run."""
    if not has_clsact(ifindex):
        return []
    found = []
    for answer in _ask(_RTM_GETTFILTER, ifindex, _EGRESS if egress else _INGRESS, dump=True):
        _, _, handle, _, info = _TCMSG.unpack_from(answer)
        fields = netlink.attributes(answer[_TCMSG.size :])
        options = netlink.attributes(fields.get(_TCA_OPTIONS, b""))
        kind = fields.get(_TCA_KIND, b"").rstrip(b"\0").decode()
        if handle:  # without one it stands for the priority, not for a filter
            number = int.from_bytes(options.get(_TCA_BPF_ID, b""), "little")
            found.append(Filter(info >> 16, handle, kind, number if kind == "bpf" else 0))
    return sorted(found, key=lambda item: item.priority)


def _remove_clsact(attachment: Attachment) -> None:
    """Remove the qdisc if it was made for this attachment and is empty."""
    if not attachment.made_clsact:
        return
    try:
        taken = any(filters(attachment.ifindex, egress=egress) for egress in (True, False))
        if taken or not has_clsact(attachment.ifindex):
            return
    except DeviceError:
        return  # gone, and the qdisc with it
    native = libbpf.load()
    hook = _hook(attachment.ifindex, True)
    # Both directions together name the qdisc itself.
    both = native.lib.BPF_TC_INGRESS | native.lib.BPF_TC_EGRESS
    hook.attach_point = native.ffi.cast("enum bpf_tc_attach_point", both)
    libbpf.call("remove clsact", "bpf_tc_hook_destroy", hook, needs=_NEEDS)


def _ask(
    kind: int, ifindex: int, parent: int, *, dump: bool = False, echo: bool = False
) -> list[bytes]:
    try:
        body = _TCMSG.pack(0, ifindex, 0, parent, 0)
        return netlink.request(kind, body, dump=dump, echo=echo)
    except FileNotFoundError:
        return []
    except OSError as error:
        if error.errno == errno.ENODEV:
            raise DeviceError(f"there is no device with index {ifindex}") from error
        raise BpfError(f"list tc filters of device {ifindex}: {error.strerror}") from error


def _hook(ifindex: int, egress: bool) -> Any:
    native = libbpf.load()
    hook = native.ffi.new("struct bpf_tc_hook *")
    hook.sz = native.ffi.sizeof(hook[0])
    hook.ifindex = ifindex
    hook.attach_point = native.lib.BPF_TC_EGRESS if egress else native.lib.BPF_TC_INGRESS
    return hook


def _opts(attachment: Attachment) -> Any:
    ffi = libbpf.load().ffi
    opts = ffi.new("struct bpf_tc_opts *")
    opts.sz = ffi.sizeof(opts[0])
    opts.priority = attachment.priority
    opts.handle = attachment.handle
    return opts


def _refused(ifindex: int, code: int, feature: str) -> Exception:
    if code == -errno.ENODEV:
        return DeviceError(f"attach by clsact: no device with index {ifindex}")
    if code in (-errno.ENOENT, -errno.EOPNOTSUPP):
        return Unsupported(
            "tc egress BPF",
            f"the kernel has no {feature}",
            needs="CONFIG_NET_SCH_INGRESS, CONFIG_NET_CLS_ACT and CONFIG_NET_CLS_BPF",
            hint="modprobe sch_ingress cls_bpf",
        )
    if code == -errno.EEXIST:
        return BpfError(
            f"attach by clsact to device {ifindex}: a filter with this priority and handle "
            "is there already"
        )
    action = f"attach by clsact to device {ifindex}"
    return libbpf.failure(action, code, needs=_NEEDS, said=libbpf.messages())
