# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""The page docs/three-ways.md: prose of lab/three-ways.in.md, numbers of the results."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from string import Template
from typing import Any

from vnethash.engines.select import EBPF
from vnethash.errors import ConfigError
from vnethash.lab.compare.measure import DEBIAN, FORMAT, HOST, PROGRAMS
from vnethash.lab.errors import LabError
from vnethash.lab.inside.cost import HASH_STAGE
from vnethash.lab.options import SHARED, STOCK, checkout

Results = Mapping[str, Any]

RSS, KFUNC, PROGTYPE, CB = "tun-rss", "tun-kfunc", "tun-progtype", "tun-cb"
WAYS = (RSS, KFUNC, PROGTYPE, CB)
"""As they were discussed, and ours last: (a) to (d)."""
SOFTWARE = "software"
_PROGRAMMED = (KFUNC, PROGTYPE, CB)
_STOCK_KERNELS = (DEBIAN, STOCK, HOST)
_KERNELS = (*_STOCK_KERNELS, *WAYS)
_SKIPPED = {
    "the running kernel has none of": "for other ways",
    "VNETHASH_REQUIRE_LAB": "for other ways",
    "the running kernel is one of the lab": "for stock kernels",
    "USO not supported": "without USO",
    "tcx not supported": "without tcx",
}
"""Why tests were skipped, by how the reason begins."""
_NO_HASH_OF_ITS_OWN = (
    "UDP, segmented by the kernel",
    "frame of 40 kB, no segmentation",
    "past the qdisc (PACKET_QDISC_BYPASS)",
)
"""Journeys on which the hash record of engine `ebpf` is not added."""


def template() -> Path:
    return checkout() / "lab" / "three-ways.in.md"


def render(results: Results, text: str) -> str:
    """The page. Raises as check() does."""
    check(results)
    return Template(text).substitute(_values(results))


def check(results: Results) -> None:
    """Raise ConfigError or LabError unless all was measured that the page tells of."""
    if results.get("format") != FORMAT:
        raise ConfigError("from-json", f"has format {results.get('format')}, not {FORMAT}")
    require(results["kernels"])
    for name in _KERNELS:
        for part, error in results["kernels"][name]["errors"].items():
            raise ConfigError("from-json", f"on {name} {part} failed: {error}")


def require(kernels: Iterable[str]) -> None:
    """Raise LabError unless all kernels that the page tells of are among these."""
    there = set(kernels)
    if missing := [name for name in _KERNELS if name not in there]:
        raise LabError(
            f"the page is about kernels that are not here: {', '.join(missing)}",
            hint="vnethash lab build, apt install user-mode-linux, and be root for this one's own",
        )


def claims(results: Results) -> list[str]:
    """What the prose says and these results do not bear out."""
    kernels = results["kernels"]
    at_home = {EBPF: STOCK, SOFTWARE: STOCK, **{way: way for way in WAYS}}
    agreed = {e: kernels[k]["agreement"][e] for e, k in at_home.items()}
    journeys = {e: kernels[k]["journeys"][e] for e, k in at_home.items()}
    rights = {e: kernels[k]["rights"][e]["needs"] for e, k in at_home.items()}
    needs_bpf = ["CAP_BPF", "CAP_PERFMON"]
    jit = kernels[HOST]["cost"]["programs"]
    said: dict[str, bool] = {
        "every frame and vector agrees with the reference, by every way": all(
            right == total for answer in agreed.values() for right, total in _counts(answer)
        ),
        "tun-rss alone lacks hash types": [e for e, a in agreed.items() if a["types_missing"]]
        == [RSS],
        "the new ways have the kernel's hash and the right queue on every journey": all(
            told["right"] == told["queue"] == told["from_kernel"] == told["sent"]
            for way in WAYS
            for told in journeys[way].values()
        ),
        "three journeys are without the record, none without its hash": [
            name for name, told in journeys[EBPF].items() if told["from_kernel"] != told["sent"]
        ]
        == list(_NO_HASH_OF_ITS_OWN)
        and all(told["right"] == told["sent"] for told in journeys[EBPF].values()),
        "past the qdisc the queue is wrong on a stock kernel": journeys[EBPF][
            _NO_HASH_OF_ITS_OWN[2]
        ]["queue"]
        < journeys[EBPF][_NO_HASH_OF_ITS_OWN[2]]["sent"],
        "other hashes run by every way but tun-rss": all(
            kernels[name]["own_programs"][program]["works"]
            and len(set(kernels[name]["own_programs"][program]["frames"])) == 1
            for name in (STOCK, *_PROGRAMMED)
            for program in PROGRAMS
        ),
        "tun-cb < tun-kfunc < tun-progtype < tun-rss in lines of the kernel": [
            way for _, way in sorted((_in_kernel(results, way), way) for way in WAYS)
        ]
        == [CB, KFUNC, PROGTYPE, RSS],
        "tun-rss needs no capability": rights[RSS] == [],
        "the three with programs need CAP_BPF and CAP_PERFMON": all(
            rights[way] == needs_bpf for way in _PROGRAMMED
        ),
        "the stock way needs CAP_NET_ADMIN as well": rights[EBPF] == ["CAP_NET_ADMIN", *needs_bpf],
        "with a JIT direct packet access is cheaper": all(
            jit[HASH_STAGE]["ns"][kind]["median"] < jit[CB]["ns"][kind]["median"]
            for kind in ("IPv4/TCP", "IPv6/TCP")
        ),
        "interpreted, the programs are within a tenth of the hash stage": all(
            abs(ratio - 1) <= 0.1
            for way in _PROGRAMMED
            for ratio in of_hash_stage(kernels[way], way).values()
        ),
        "by some tens of nanoseconds": all(
            10 < jit[CB]["ns"][kind]["median"] - jit[HASH_STAGE]["ns"][kind]["median"] < 100
            for kind in ("IPv4/TCP", "IPv6/TCP")
        ),
        "in the lab all ways in the kernel stay within a tenth of the plain tap": all(
            row["ratio"]["median"] < 1.1
            for name in (STOCK, *WAYS)
            for row in kernels[name]["cost"]["path"]
            if row["variant"].startswith(f"{EBPF if name == STOCK else name} ")
        ),
        "the object of tun-cb loads where its ioctl is not": all(
            kernels[name]["cost"]["programs"][CB]["works"] for name in (STOCK, HOST)
        ),
        "the stock way works on all kernels, the others on their own": all(
            kernels[name]["agreement"][engine]["works"] == (engine in (EBPF, SOFTWARE, name))
            for name in _KERNELS
            for engine in (EBPF, SOFTWARE, *WAYS)
        ),
        "it is one object on all kernels": len(
            {kernels[name]["facts"]["objects"]["stages.bpf.o"] for name in _KERNELS}
        )
        == 1,
        "without a JIT no kfunc is called": "JIT" in kernels[STOCK]["facts"]["kfunc"],
        "nor without BTF": "BTF" in kernels[DEBIAN]["facts"]["kfunc"],
        "no kernel test fails": not any(kernels[name]["suite"]["failed"] for name in _KERNELS),
    }
    return [claim for claim, holds in said.items() if not holds]


def _values(results: Results) -> dict[str, str]:
    kernels = results["kernels"]
    jit = kernels[HOST]["cost"]["programs"]
    values = {
        "summary": _summary(results),
        "agreement": _agreement(kernels),
        "journeys": _journeys(kernels),
        "own_programs": _own_programs(kernels),
        "lines": _lines(results["lines"]),
        "portability": _portability(kernels),
        "tests": _tests(kernels),
        "rights": _rights(kernels),
        "programs": _programs(kernels),
        "path": _path(kernels),
        "object": kernels[STOCK]["facts"]["objects"]["stages.bpf.o"][:16],
        "kfunc_stock": kernels[STOCK]["facts"]["kfunc"],
        "kfunc_debian": kernels[DEBIAN]["facts"]["kfunc"],
        "unprivileged": str(kernels[STOCK]["facts"]["unprivileged_bpf_disabled"]),
        "date": results["date"],
        "cpu": results["machine"]["cpu"],
        "cpus": str(results["machine"]["cpus"]),
        "host": _release(kernels[HOST]),
        "lab": _release(kernels[STOCK]),
        "debian": _release(kernels[DEBIAN]),
        "common": str(results["lines"][SHARED[0]]["kernel"]),
        "journey_count": str(len(kernels[STOCK]["journeys"][EBPF])),
        "rounds": str(kernels[STOCK]["cost"]["path"][0]["value"]["count"]),
    }
    for way in WAYS:
        values[f"lines_{way[4:]}"] = str(_in_kernel(results, way))
    for kind, number in (("IPv4/TCP", "4"), ("IPv6/TCP", "6")):
        values[f"direct_{number}"] = f"{jit[HASH_STAGE]['ns'][kind]['median']:.0f}"
        values[f"copied_{number}"] = f"{jit[CB]['ns'][kind]['median']:.0f}"
    for name in _KERNELS:
        values[f"plain_{name.replace('-', '_')}"] = _microseconds(_base(kernels[name]))
    return values


def _summary(results: Results) -> str:
    kernels = results["kernels"]
    engines = (EBPF, SOFTWARE, *WAYS)
    homes = dict(zip(engines, (STOCK, STOCK, *WAYS), strict=True))

    def row(title: str, cell: Callable[[str, Results], str]) -> list[str]:
        return [title, *(cell(engine, kernels[homes[engine]]) for engine in engines)]

    def verified(engine: str, kernel: Results) -> str:
        return _of(map(sum, zip(*_counts(kernel["agreement"][engine]), strict=True)))

    def delivered(engine: str, kernel: Results) -> str:
        told = kernel["journeys"][engine].values()
        return f"{sum(_from_kernel(each) for each in told)} of {len(told)}"

    def another(engine: str, kernel: Results) -> str:
        if engine in (SOFTWARE, RSS):
            return "no"
        return "yes" if all(each["works"] for each in kernel["own_programs"].values()) else "no"

    def lines(engine: str, _: Results) -> str:
        if engine not in WAYS:
            return "0"
        own = results["lines"][engine]
        return f"{own['kernel']} + {own['uapi']}"

    return _table(
        ["", *(f"`{engine}`" for engine in engines)],
        [
            row("kernel", lambda e, _: "any" if e not in WAYS else "new"),
            row(
                "where the hash is made",
                lambda e, _: {EBPF: "BPF, before tun", SOFTWARE: "reader", RSS: "tun"}.get(
                    e, "BPF, in tun"
                ),
            ),
            row("frames and vectors as the reference", verified),
            row("journeys with the kernel's hash", delivered),
            row(
                "hash types missing",
                lambda e, k: ", ".join(k["agreement"][e]["types_missing"]) or "none",
            ),
            row("another hash without another kernel", another),
            row("lines, kernel + UAPI", lines),
            row("capabilities to attach", lambda e, k: _capabilities(k["rights"][e]["needs"])),
        ],
    )


def _agreement(kernels: Results) -> str:
    columns = [(EBPF, STOCK), *((way, way) for way in WAYS)]
    answers = [kernels[kernel]["agreement"][engine] for engine, kernel in columns]
    rows = [["published vectors", *(_of(answer["vectors"]) for answer in answers)]]
    for group in answers[0]["groups"]:
        cells = []
        for answer in answers:
            lacks = group.endswith("_EX") and answer["types_missing"]
            cells.append(_of(answer["groups"][group]) + (" as IPv6" if lacks else ""))
        rows.append([group, *cells])
    return _table(["frames", *(f"`{engine}`" for engine, _ in columns)], rows)


def _journeys(kernels: Results) -> str:
    columns = [(EBPF, STOCK), (SOFTWARE, STOCK), *((way, way) for way in WAYS)]
    rows = []
    for journey in kernels[STOCK]["journeys"][EBPF]:
        cells = [
            _journey(kernels[kernel]["journeys"][engine][journey]) for engine, kernel in columns
        ]
        rows.append([journey, *cells])
    return _table(["", *(f"`{engine}`" for engine, _ in columns)], rows)


def _journey(told: Results) -> str:
    if "not_here" in told:
        return "not here"
    if told["received"] != told["sent"] or told["right"] != told["sent"]:
        return f"**{told['right']} of {told['sent']} right**"
    source = "kernel" if _from_kernel(told) else "reader"
    return source if told["queue"] == told["sent"] else f"{source}, wrong queue"


def _from_kernel(told: Results) -> bool:
    return bool(told.get("sent") and told["from_kernel"] == told["sent"])


def _own_programs(kernels: Results) -> str:
    rows = []
    for program in PROGRAMS:
        link = f"[`{program}.c`](examples/programs/{program}.c)"
        cells = []
        for name in (*_STOCK_KERNELS, *_PROGRAMMED):
            told = kernels[name]["own_programs"][program]
            cells.append(_of(told["frames"]) if told["works"] else "refused")
        rows.append([link, *cells])
    heads = [f"`program`, {_release(kernels[name])}" for name in _STOCK_KERNELS]
    return _table(["", *heads, *(f"`{way}`" for way in _PROGRAMMED)], rows)


def _lines(lines: Results) -> str:
    rows = []
    for name in (SHARED[0], *WAYS):
        counts = lines[name]
        rows.append(
            [
                "common to all" if name == SHARED[0] else f"`{name}`",
                *(str(counts[kind]) for kind in ("kernel", "uapi", "libbpf")),
                str(counts["kernel"] + counts["uapi"] + _beside(lines, name)),
                f"+{counts['added']} -{counts['removed']} in {counts['files']} files",
            ]
        )
    return _table(
        ["", "kernel", "UAPI", "libbpf", "kernel and UAPI, with the common part", "diffstat"], rows
    )


def _beside(lines: Results, name: str) -> int:
    return 0 if name == SHARED[0] else int(lines[SHARED[0]]["kernel"] + lines[SHARED[0]]["uapi"])


def _in_kernel(results: Results, way: str) -> int:
    return int(results["lines"][way]["kernel"] + results["lines"][way]["uapi"])


def _portability(kernels: Results) -> str:
    engines = (EBPF, *WAYS)
    rows = []
    for name in _KERNELS:
        facts = kernels[name]["facts"]
        cells = []
        for engine in engines:
            told = kernels[name]["agreement"][engine]
            cells.append(f"{_of(told['vectors'])} ({told['point']})" if told["works"] else "no")
        has = [word for word, there in (("JIT", facts["jit"]), ("BTF", facts["btf"])) if there]
        rows.append([_release(kernels[name]), " and ".join(has) or "neither", *cells])
    return _table(["Linux", "JIT, BTF", *(f"`{engine}`" for engine in engines)], rows)


def _tests(kernels: Results) -> str:
    rows = []
    for name in _KERNELS:
        suite = kernels[name]["suite"]
        total, why = suite["total"], _why_skipped(suite["skipped"])
        rows.append(
            [
                _release(kernels[name]),
                *(str(total[k]) for k in ("passed", "failed", "skipped")),
                why,
            ]
        )
    return _table(["Linux", "passed", "failed", "skipped", "why skipped"], rows)


def _why_skipped(skipped: Mapping[str, int]) -> str:
    """In few words, what belongs together counted together."""
    counts: Counter[str] = Counter()
    for reason, count in skipped.items():
        short = next((said for begin, said in _SKIPPED.items() if reason.startswith(begin)), reason)
        counts[short] += count
    return "; ".join(f"{count} {short}" for short, count in counts.most_common())


def _rights(kernels: Results) -> str:
    rows = []
    for engine, name in ((EBPF, STOCK), (SOFTWARE, STOCK), *((way, way) for way in WAYS)):
        told = kernels[name]["rights"][engine]
        rows.append([f"`{engine}`", _capabilities(told["needs"])])
    return _table(["", "least capabilities that attach and read a hash"], rows)


def _capabilities(needs: Sequence[str] | None) -> str:
    if needs is None:
        return "more than were tried"
    return ", ".join(name.removeprefix("CAP_") for name in needs) or "none"


def _programs(kernels: Results) -> str:
    """Nanoseconds of each program: machine code where it loads here, interpreted in the lab."""
    kinds = list(kernels[HOST]["cost"]["programs"][HASH_STAGE]["ns"])
    cases = [
        (HASH_STAGE, HOST, "hash stage of `ebpf`", "JIT"),
        (CB, HOST, "`tun-cb`", "JIT"),
        (HASH_STAGE, STOCK, "hash stage of `ebpf`", "interpreted"),
        *((way, way, f"`{way}`", "interpreted") for way in _PROGRAMMED),
    ]
    rows = []
    for program, name, title, how in cases:
        told = kernels[name]["cost"]["programs"][program]
        costs = [_spread(told["ns"][kind], 0) for kind in kinds]
        if program != HASH_STAGE:
            ratios = of_hash_stage(kernels[name], program)
            costs = [f"{cost}: {ratios[kind]:.2f}" for cost, kind in zip(costs, kinds, strict=True)]
        rows.append([title, f"{_release(kernels[name])}, {how}", str(told["verified"]), *costs])
    return _table(["program", "Linux", "instructions verified", *kinds], rows)


def of_hash_stage(kernel: Results, program: str) -> dict[str, float]:
    """By kind of packet, what a program costs, as a share of the hash stage on the same kernel."""
    programs = kernel["cost"]["programs"]
    base = programs[HASH_STAGE]["ns"]
    return {
        kind: cost["median"] / base[kind]["median"]
        for kind, cost in programs[program]["ns"].items()
    }


def _path(kernels: Results) -> str:
    rows = []
    cases = list(dict.fromkeys(row["case"] for row in kernels[STOCK]["cost"]["path"]))
    for name, engine in ((HOST, EBPF), (STOCK, EBPF), *((way, way) for way in WAYS)):
        found = {(row["case"], row["variant"]): row for row in kernels[name]["cost"]["path"]}
        engines = [f"{engine} off", f"{engine} record"]
        variants = [*engines, "ebpf rehash", SOFTWARE] if engine == EBPF else engines
        for variant in variants:
            cells = [_spread(found[case, variant]["ratio"], 2) for case in cases]
            rows.append([f"`{variant}`", _release(kernels[name]), *cells])
    return _table(["", "Linux", *cases], rows)


def _base(kernel: Results) -> Results | None:
    """What a packet costs through the plain tap, over a bridge."""
    rows = kernel.get("cost", {}).get("path", [])
    return rows[0]["value"] if rows else None


def _microseconds(summary: Results | None) -> str:
    return f"{summary['median'] / 1000:.1f}" if summary else "not measured"


def _spread(summary: Results, digits: int) -> str:
    low, high = (f"{summary[end]:.{digits}f}" for end in ("low", "high"))
    return f"{summary['median']:.{digits}f} ({low} to {high})"


def _counts(answer: Results) -> list[tuple[int, int]]:
    return [tuple(answer["vectors"]), *(tuple(group) for group in answer["groups"].values())]


def _of(counts: Iterable[int]) -> str:
    right, total = counts
    return f"{right}/{total}"


def _release(kernel: Results) -> str:
    return str(kernel["facts"]["release"])


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)
