# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""The kernels of the lab: which there are, and the patches of each."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from vnethash.errors import ConfigError
from vnethash.lab.errors import LabError

# Below lab/patches: what all options but `stock` stand on, in this order.
SHARED = ("0001-common", "0002-lab-only")

STOCK = "stock"

_SUMMARIES = {
    "tun-rss": "tun itself computes RSS and reports, set by ioctls",
    "tun-kfunc": "the steering program reports through a kfunc",
    "tun-progtype": "a program type for steering that has fields for hash, report and queue",
    "tun-cb": "tun takes the report from the control buffer of the steering program",
    STOCK: "the same source and configuration without our patches",
}

# One source tree serves all, and make compiles again what a change touches.
# tun-progtype changes <linux/filter.h> and <uapi/linux/bpf.h>, `stock` lacks
# the change to <linux/skbuff.h>: each costs much, so each is done once, at an end.
_BUILD_ORDER = ("tun-progtype", "tun-cb", "tun-kfunc", "tun-rss", STOCK)


@dataclass(frozen=True, slots=True)
class Option:
    """A kernel that can be built.

    name     as in lab/patches and on the command line
    summary  one line without a full stop
    folder   lab/ of the checkout
    """

    name: str
    summary: str
    folder: Path

    @property
    def config(self) -> Path:
        """What is set on top of the architecture's default configuration."""
        return self.folder / "kernel.config"

    def patches(self) -> tuple[Path, ...]:
        """In the order they apply. Raises LabError where a folder has none."""
        if self.name == STOCK:
            return ()
        found: list[Path] = []
        for name in (*SHARED, self.name):
            folder = self.folder / "patches" / name
            patches = sorted(folder.glob("*.patch"))
            if not patches:
                raise LabError(f"{folder} has no patches", hint="is the checkout complete?")
            found += patches
        return tuple(found)


def checkout() -> Path:
    """The checkout this package runs from. Raises LabError if it was installed elsewhere."""
    root = Path(__file__).resolve().parents[3]
    if not (root / "lab" / "patches").is_dir():
        raise LabError(
            "the lab needs the patches in lab/ of a checkout, which this installation lacks",
            hint="clone the repository, run `make demo` there once, then .venv/bin/vnethash lab",
        )
    return root


def options(folder: Path | None = None) -> tuple[Option, ...]:
    """All of them, with the patches below `folder` (default: lab/ of the checkout)."""
    folder = folder or checkout() / "lab"
    return tuple(Option(name, summary, folder) for name, summary in _SUMMARIES.items())


def select(names: Iterable[str], folder: Path | None = None) -> tuple[Option, ...]:
    """The options of these names, each once; all when there is none.

    Raises ConfigError for a name that no option has.
    """
    known = {option.name: option for option in options(folder)}
    wanted = dict.fromkeys(names or known)
    for name in wanted:
        if name not in known:
            raise ConfigError("option", f"{name!r} is none of {', '.join(known)}")
    return tuple(known[name] for name in wanted)


def in_build_order(chosen: Iterable[Option]) -> list[Option]:
    """So that building them one after the other compiles least."""
    return sorted(chosen, key=lambda option: _BUILD_ORDER.index(option.name))
