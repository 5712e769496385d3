# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""What ``vnethash plan`` prints: the queues before and after, the bound, how to set it."""

from typing import TYPE_CHECKING

from vnethash.cli.output import console

if TYPE_CHECKING:
    from pathlib import Path

    from rich.table import Table
    from rich.text import Text

    from vnethash.analysis.planning import Judgement, TrafficPlan

_BAR = 24


def print_plan(
    plan: "TrafficPlan", judgement: "Judgement | None", device: str, output: "Path | None"
) -> None:
    """Everything, for people."""
    from rich.text import Text

    out = console()
    out.print(_queues(plan))
    out.print()
    for line in _quality(plan):
        out.print(line, soft_wrap=True)
    if judgement is not None:
        out.print(_held(plan, judgement), soft_wrap=True)
    if not plan.changed:
        return
    out.print()
    for title, lines in _how_to(plan, device, output).items():
        out.print(Text(title, style="bold"), soft_wrap=True)
        for line in lines:
            out.print(f"  {line}", soft_wrap=True)


def _queues(plan: "TrafficPlan") -> "Table":
    from rich.table import Table

    sides = plan.loads_before, plan.loads_after
    highest = max(*sides[0], *sides[1]) or 1.0
    # Both bars have the room that numbers, headings and seven columns' gaps leave.
    numbers = sum(max(len(f"{max(loads):,}"), len("before")) for loads in sides)
    bar = min(_BAR, max((console().width - numbers - len("queue" + 2 * "of mean") - 12) // 2, 0))
    table = Table(box=None, pad_edge=False)
    table.add_column("queue", justify="right", no_wrap=True)
    for side in ("before", "after"):
        table.add_column(side, justify="right", no_wrap=True)
        table.add_column("of mean", justify="right", no_wrap=True)
        table.add_column("", width=bar, no_wrap=True)
    for queue in range(max(map(len, sides))):
        cells: list[str | Text] = [str(queue)]
        for loads in sides:
            if queue < len(loads):
                cells += _cells(loads[queue], sum(loads) / len(loads), highest, bar)
            else:
                cells += ["-", "", ""]
        table.add_row(*cells)
    return table


def _cells(load: float, mean: float, highest: float, bar: int) -> "list[str | Text]":
    from rich.text import Text

    share = load / mean if mean else 1.0
    style = "green" if share <= 1.05 else "yellow" if share <= 1.25 else "red"
    return [f"{load:,.0f}", f"{share:.0%}", Text("█" * round(bar * load / highest), style=style)]


def _quality(plan: "TrafficPlan") -> list[str]:
    from vnethash.rss.balance import imbalance

    before, after = imbalance(plan.loads_before), imbalance(plan.loads_after)
    lines = [
        f"imbalance, the busiest queue over the mean: {before:.3f} before, {after:.3f} after",
        f"bound: {_bound(plan)}",
    ]
    if plan.above_bound < 5e-5:
        lines.append("so this is the optimum, to a hundredth of a percent")
    else:
        lines.append(f"so this is at most {plan.above_bound:.2%} above the optimum")
    if not plan.changed:
        kept = "nothing was found that is evener by more than the tolerance"
        return [*lines, f"{kept}: the configuration stays as it is"]
    moved = f"{plan.moved:.1%} of what is hashed goes to another queue"
    if plan.moved_entries is not None:
        moved += f": {plan.moved_entries} of {len(plan.after.indirection_table)} entries change"
    lines.append(moved)
    if plan.tried > 1:
        lines.append(f"{plan.tried} keys were tried")
    return lines


def _held(plan: "TrafficPlan", judgement: "Judgement") -> str:
    from vnethash.rss.balance import imbalance

    before, after = imbalance(judgement.loads_before), imbalance(judgement.loads_after)
    amount = f"{sum(judgement.loads_after):,} {plan.measure.value}"
    return f"on other traffic, {amount}: imbalance {before:.3f} before, {after:.3f} after"


def _bound(plan: "TrafficPlan") -> str:
    from vnethash.rss.makespan import Limit

    total = sum(plan.loads_after) or 1.0
    load, share = f"{plan.bound.load:,.0f} {plan.measure.value}", plan.bound.load / total
    under = "no key and no table has less on the busiest queue than"
    match plan.bound.limit:
        case Limit.EVEN:
            return f"{under} {load}, when all share alike"
        case Limit.LARGEST:
            if plan.aim.symmetric:
                return f"{under} {load}: {share:.1%} of all are flows no symmetric key can part"
            return f"{under} {load}: the heaviest flow is {share:.1%} of all"
        case Limit.SHARED:
            return f"{under} {load}: there are more heavy flows than queues, and some share one"
        case Limit.FIXED:
            queue = plan.after.unclassified_queue
            return f"{under} {load}: {share:.1%} of all has no hash and is on queue {queue}"


def _how_to(plan: "TrafficPlan", device: str, output: "Path | None") -> dict[str, list[str]]:
    from vnethash.rss.balance import imbalance

    queues = plan.after.queues
    file = output or "plan.json"
    saved = "written to" if output else "with --output"
    taps = f"taps, as planned ({saved} {file})"
    if plan.ethtool is None:
        guest = [
            "ethtool -X cannot set this table, as it puts each queue once in a row; "
            "what it can set moves more: plan without --few-moves for that"
        ]
    else:
        guest = [plan.ethtool.line(device)]
        if plan.ethtool.rss != plan.after:
            guest.append(
                "not the table above: ethtool -X puts each queue once in a row; with the best "
                f"that does, the imbalance is {imbalance(plan.ethtool.loads):.3f} and "
                f"{plan.ethtool.moved:.1%} moves"
            )
            if not plan.aim.keep_key and max(plan.ethtool.loads) > 1.01 * max(plan.loads_after):
                guest.append("--for-ethtool looks for a key with which such a table is more even")
    return {
        taps: [f"vnethash attach TAP --config {file}"],
        "guests and NICs, by ethtool": guest,
        "QEMU: let the guest's driver set it": [
            f"-device virtio-net-pci,netdev=...,mq=on,vectors={2 * queues + 2},rss=on"
        ],
        "libvirt: the same": [f"<driver queues='{queues}' rss='on'/>"],
    }
