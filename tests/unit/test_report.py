# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""Reports: what sentences, tables and pictures say, against the analysis; what a page may hold."""

import re
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from tests.analyses import SECOND, START, analysis_of, random_flows
from vnethash.analysis.anonymize import Anonymizer, anonymize
from vnethash.analysis.arrow import flows_table
from vnethash.analysis.flows import endpoints, flow_text
from vnethash.analysis.report import draw, html, sentences, tables
from vnethash.analysis.report.series import series_of
from vnethash.analysis.result import Analysis, Reason, Source
from vnethash.analysis.statistics import over_time
from vnethash.analysis.text import amount, duration, moment, percent
from vnethash.errors import ConfigError, DependencyMissing
from vnethash.rss.config import RssConfig
from vnethash.stats import Measure
from vnethash.virtio.hash_types import HashType

BY = Measure.BYTES
RSS = RssConfig.default(4)
HOSTILE = '/captures/<script>alert(1)</script>"&.pcap'


def moved(analysis: Analysis, *buckets: int) -> Analysis:
    """With these entries of the table on the next queue."""
    table = list(analysis.rss.indirection_table)
    for bucket in buckets:
        table[bucket] = (table[bucket] + 1) % analysis.rss.queues
    return analysis.under(analysis.rss.replace(indirection_table=table))


def all_on_one_queue() -> Analysis:
    """Queue 2 gets one flow that is three quarters of all, and queue 0 the rest."""
    flows = random_flows(4)
    flows["packets"], flows["bytes"] = [90, 10, 10, 10], [9000, 1000, 1000, 1000]
    analysis = analysis_of(RSS, flows)
    table = np.zeros(128, int)
    table[analysis.flow_buckets[0]] = 2
    assert len(set(analysis.flow_buckets.tolist())) == 4
    return analysis.under(RSS.replace(indirection_table=table.tolist()))


@pytest.fixture(scope="module")
def analysis() -> Analysis:
    rss = RSS.replace(hash_types=HashType.ALL & ~HashType.IPv4)
    return analysis_of(rss, random_flows(300), windows=30)


@pytest.fixture(scope="module")
def page(analysis: Analysis) -> str:
    return html(analysis, moved(analysis, 5, 77), by=BY)


class Reader(HTMLParser):
    """The tables of a page, as rows of text, by caption; and all tags with attributes."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tables: dict[str, list[list[str]]] = {}
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self._caption: str | None = None
        self._in: str | None = None
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag in ("caption", "td", "th"):
            self._in = tag
        if tag == "caption":
            self._caption = ""
        if self._caption is not None:
            rows = self.tables.setdefault(self._caption, [])
            if tag == "tr":
                rows.append([])
            if tag in ("td", "th"):
                rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        if tag == "caption":
            self.tables.pop("", None)
        if tag in ("caption", "td", "th"):
            self._in = None

    def handle_data(self, data: str) -> None:
        if self._in == "caption":
            self._caption = (self._caption or "") + data
        elif self._in is not None and self._caption is not None:
            self.tables[self._caption][-1][-1] += data


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "0 B"),
        (950, "950 B"),
        (999, "999 B"),
        (1000, "1.00 kB"),
        (12_345, "12.3 kB"),
        (999_499, "999 kB"),
        (999_500, "1.00 MB"),
        (1.5, "1.50 B"),
        (2**64, "18.4 EB"),
        (3e21, "3000 EB"),
    ],
)
def test_amounts(number: float, text: str) -> None:
    assert amount(number, "B") == text


def test_shares_and_times() -> None:
    assert [percent(part, 1000) for part in (0, 0.1, 4, 99, 340, 1000)] == [
        "0%",
        "<0.1%",
        "0.4%",
        "9.9%",
        "34%",
        "100%",
    ]
    assert percent(5, 0) == "0%"
    assert moment(START) == "2023-11-14 22:13:20"
    assert moment(START + 1_500_000, fine=True) == "2023-11-14 22:13:20.001"
    assert moment(-1) == "1969-12-31 23:59:59"
    assert [duration(ns) for ns in (5, 20_000, 1_500_000_000, 300 * SECOND, 90_000 * SECOND)] == [
        "5 ns",
        "20 µs",
        "1.5 s",
        "5.0 min",
        "1.0 d",
    ]


@pytest.mark.parametrize("steps", [1, 4, 7, 30, 100])
def test_series_has_all_of_the_load(analysis: Analysis, steps: int) -> None:
    series = series_of(analysis, BY, steps)
    assert series is not None
    assert len(series.loads) <= steps
    assert series.step_ns % SECOND == 0
    assert np.array_equal(series.loads.sum(axis=0), analysis.by_queue.bytes)
    assert series.starts_ns[0] == START
    assert series.ends_ns[-1] == START + 30 * SECOND
    lengths = np.array(series.ends_ns) - np.array(series.starts_ns)
    assert np.allclose(series.per_second * lengths[:, None] / SECOND, series.loads)


def test_series_has_steps_for_times_without_packets(analysis: Analysis) -> None:
    assert analysis.windows is not None
    starts = analysis.windows.starts_ns.copy()
    starts[-1] += 10 * SECOND
    series = series_of(
        replace(analysis, windows=replace(analysis.windows, starts_ns=starts)), BY, 100
    )
    assert series is not None
    assert len(series.loads) == 40
    assert not series.loads[30:39].any()
    assert series.loads[39].any()
    assert np.isnan(series.imbalances[30:39]).all()


def test_series_of_absurd_times(analysis: Analysis) -> None:
    assert analysis.windows is not None
    starts = np.sort(np.append(analysis.windows.starts_ns[:-2], [0, 9_000_000_000 * SECOND]))
    windows = replace(analysis.windows, starts_ns=starts)
    series = series_of(replace(analysis, windows=windows), BY, 60)
    assert series is not None
    assert 0 < len(series.loads) <= 60
    assert series.loads.sum() == analysis.bytes
    assert series.moment(len(series.loads) - 1) > "2200"
    html(replace(analysis, windows=windows))


def test_verdicts() -> None:
    one = all_on_one_queue()
    octets = one.by_queue.bytes
    ratio = float(octets[2]) / (float(octets.sum()) / 4)
    assert ratio > 2
    assert sentences.verdict(one, BY) == f"Queue 2 gets {ratio:.2f} times the mean."
    even = np.arange(128) % 4
    flows = random_flows(2000)
    flows["packets"], flows["bytes"] = 1, 60
    balanced = analysis_of(RSS.replace(indirection_table=even.tolist()), flows)
    assert sentences.verdict(balanced, BY).startswith("The queues are evenly loaded: the busiest")
    table = even.copy()
    table[:8] = 0
    uneven = analysis_of(RSS.replace(indirection_table=table.tolist()), flows)
    assert 1.1 < uneven.by_queue.bytes.max() / uneven.by_queue.bytes.mean() < 1.3
    assert sentences.verdict(uneven, BY).startswith("Queue 0 gets 1.")
    single = analysis_of(RssConfig.default(1), flows)
    assert sentences.verdict(single, BY) == "There is one queue, which gets everything."
    nothing = replace(
        analysis_of(RSS, random_flows(0), windows=0), unhashed=np.zeros((4, 2), np.uint64)
    )
    assert sentences.verdict(nothing, BY) == "There are no packets."


def test_a_flow_heavier_than_the_mean_is_told() -> None:
    one = all_on_one_queue()
    told = " ".join(sentences.about_flows(one, BY))
    share = 9000 / one.bytes
    assert f"The heaviest flow carries {100 * share:.0f}% of all bytes, on queue 2." in told
    assert f"below {4 * share:.2f} times the mean" in told
    flows = random_flows(1000)
    flows["packets"], flows["bytes"] = 1, 60
    assert "below" not in " ".join(sentences.about_flows(analysis_of(RSS, flows), BY))


def test_what_a_plan_changes(analysis: Analysis) -> None:
    after = moved(analysis, 5, 77)
    told = " ".join(sentences.about_plan(analysis, after, BY))
    assert "2 of 128 entries of the table change." in told
    other = np.isin(analysis.flow_buckets, [5, 77]) & (analysis.flows["report"] > 0)
    assert f"{other.sum()} flows with" in told
    assert "The key is another one" in " ".join(
        sentences.about_plan(analysis, analysis.under(analysis.rss.replace(key=bytes(40))), BY)
    )


def test_time_is_told(analysis: Analysis) -> None:
    course = over_time(analysis, BY)
    told = " ".join(sentences.about_time(analysis, BY, 60))
    assert f"at worst {course.imbalances.max():.2f} times" in told
    assert moment(course.worst_ns) in told
    assert "In steps of" not in told
    series = series_of(analysis, BY, 10)
    assert series is not None
    told = " ".join(sentences.about_time(analysis, BY, 10))
    assert (
        f"In steps of 3 s the busiest queue gets {np.median(series.imbalances):.2f} times" in told
    )
    assert "In windows of 1 s" in told
    assert sentences.about_time(replace(analysis, windows=None), BY, 10) == []
    assert analysis.windows is not None
    packets, untimed = analysis.windows.packets.copy(), np.zeros(129, np.uint64)
    packets[4] = packets[5] = 0
    untimed[3] = 1
    windows = replace(analysis.windows, packets=packets, untimed_packets=untimed)
    told = " ".join(sentences.about_time(replace(analysis, windows=windows), BY, 10))
    assert "1 packet without a time is left out." in told
    assert "fewer than 16 packets a queue" in told


def test_fewer_steps_for_few_packets(analysis: Analysis) -> None:
    assert analysis.windows is not None
    few = analysis.windows.packets // np.uint64(1000)
    windows = replace(analysis.windows, packets=few)
    series = series_of(replace(analysis, windows=windows), BY, 100)
    assert series is not None
    assert len(series.loads) == 10  # of three windows each


def test_tables_have_the_numbers(analysis: Analysis, page: str) -> None:
    found = Reader(page).tables
    after = moved(analysis, 5, 77)
    for queue, row in enumerate(found["Load of the queues"][1:]):
        load, planned = analysis.by_queue, after.by_queue.bytes
        assert row == [
            str(queue),
            f"{load.packets[queue]:,}",
            f"{load.bytes[queue]:,}",
            f"{load.flows[queue]:,}",
            f"{load.bytes[queue] / load.bytes.mean():.2f}",
            f"{planned[queue]:,}",
            f"{planned[queue] / planned.mean():.2f}",
        ]
    flows = found["The heaviest flows"][1:]
    assert len(flows) == tables.FLOWS_SHOWN
    for row, flow, queue, then in zip(
        flows, analysis.flows, analysis.flow_queues, after.flow_queues, strict=False
    ):
        assert row[1:4] == [str(queue), str(then), flow_text(flow).replace(" > ", "\n> ")]
        assert row[5] == f"{flow['bytes']:,}"
    why = {row[0]: row[1] for row in found["Packets without a hash"]}
    assert why["not IP"] == why["— ARP"] == "7"
    assert why["hash type not enabled"] == f"{analysis.unhashed[Reason.TYPE_OFF, 0]:,}"
    kinds = {row[0]: row[1] for row in found["Report types"][1:]}
    assert kinds["TCPv4"] == f"{analysis.by_report.packets[2]:,}"
    assert sum(int(number.replace(",", "")) for number in kinds.values()) == analysis.packets
    over_time = found["Load over time"][1:]
    assert sum(int(row[1].replace(",", "")) for row in over_time) == analysis.bytes


def test_the_configuration_is_told(analysis: Analysis, page: str) -> None:
    after = moved(analysis, 5, 77)
    for one in (analysis, after):
        table = ", ".join(map(str, one.rss.indirection_table))
        assert f"<pre>{table}</pre>" in page
    assert page.count(f"<dd>{analysis.rss.key.hex()}</dd>") == 2
    assert page.count("<dd>128 entries, the queues in turn</dd>") == 1
    assert page.count("<dd>128 entries</dd>") == 1


def test_only_the_busiest_of_many_queues() -> None:
    many = analysis_of(RssConfig.default(200), random_flows(500))
    table = tables.queue_table(many, None, BY)
    assert len(table.rows) == tables.QUEUES_SHOWN
    assert table.left_out == "The busiest; 136 others are not shown."
    assert str(many.by_queue.bytes.argmax()) in {row[0].text for row in table.rows}
    html(many)


def test_a_plan_for_more_queues(analysis: Analysis) -> None:
    more = analysis.rss.replace(queues=6, indirection_table=[n % 6 for n in range(128)])
    found = Reader(html(analysis, analysis.under(more))).tables["Load of the queues"]
    assert [row[0] for row in found[1:]] == list("012345")
    assert found[6][1:5] == ["-"] * 4


@pytest.mark.parametrize("entries", [1, 8, 128, 256, 1024, 4096])
def test_tables_of_all_sizes(entries: int) -> None:
    rss = RssConfig(2, indirection_table=tuple(n % 2 for n in range(entries)))
    odd = analysis_of(rss, random_flows(100))
    drawn = html(odd, odd.under(rss.replace(indirection_table=[0] * entries)))
    buckets = re.findall(r"<title>(?:entry|entries) [^<]*queue|<title>entries", drawn)
    assert len(buckets) >= min(entries, 1024)


def test_nothing_at_all_is_a_page() -> None:
    nothing = analysis_of(RSS, random_flows(0), windows=0, sources=())
    nothing = replace(nothing, unhashed=np.zeros((4, 2), np.uint64), ether_types={})
    page = html(nothing, by=BY)
    assert "There are no packets." in page
    assert "There are no flows." in page
    assert "No packet has a hash." in page


def test_names_of_files_are_text(analysis: Analysis) -> None:
    source = Source(HOSTILE, 1, 2, f"{HOSTILE}: cut <b>short</b>", 10)
    page = html(replace(analysis, sources=(source,)))
    reader = Reader(page)
    assert "<script" not in page
    assert "<b>short" not in page
    row = reader.tables["Files"][1]
    assert row == [HOSTILE, "1", "2 B", f"{HOSTILE}: cut <b>short</b> (byte 10)"]
    assert "1 file could not be read to the end." in page


@pytest.mark.parametrize(("short", "told"), [(1, "1 packet was"), (2000, "2,000 packets were")])
def test_packets_captured_short_are_told(analysis: Analysis, short: int, told: str) -> None:
    assert f"{told} captured in part only" in html(replace(analysis, captured_short=short))


def test_the_period_ends_with_the_last_window(page: str) -> None:
    assert f"{moment(START)} to {moment(START + 30 * SECOND)} UTC" in page


def test_files_that_broke_come_first(analysis: Analysis) -> None:
    files = [Source(f"{n}.pcap", 1, 2, "cut short" if n == 70 else None) for n in range(80)]
    table = tables.source_table(replace(analysis, sources=tuple(files)))
    assert [row[0].text for row in table.rows[:3]] == ["70.pcap", "0.pcap", "1.pcap"]
    assert table.left_out == "16 more files, read to the end."


def test_a_page_asks_for_nothing(page: str) -> None:
    tags = Reader(page).tags
    policy = next(a["content"] for t, a in tags if a.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None
    assert policy.split("; ")[0] == "default-src 'none'"
    assert "script-src" not in policy
    assert not {tag for tag, _ in tags} & {"script", "link", "img", "iframe", "object", "image"}
    for tag, attributes in tags:
        for name, value in attributes.items():
            assert not name.startswith("on"), (tag, name)
            if name in ("href", "src", "xlink:href", "action"):
                assert value == "#files"
    addresses = set(re.findall(r"[a-z]+://[^\s\"'<)]+", page))
    assert addresses <= {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}
    assert not re.search(r"@import|url\((?!#)", page)


def test_the_same_analysis_is_the_same_page(analysis: Analysis, page: str) -> None:
    assert html(analysis, moved(analysis, 5, 77), by=BY) == page


def test_names_inside_of_pictures_are_apart(page: str) -> None:
    names = [attributes["id"] for _, attributes in Reader(page).tags if "id" in attributes]
    assert len(names) == len(set(names))


def told(analysis: Analysis, text: str) -> set[str]:
    """Of the addresses, those long enough not to be there by chance."""
    addresses = {address for flow in analysis.flows for address in endpoints(flow)[:2]}
    return {address for address in addresses if len(address) > 9 and address in text}


def test_anonymous_pages(analysis: Analysis, page: str, tmp_path: Path) -> None:
    secret = replace(analysis, sources=(Source("/home/alice/bank.pcap", 1, 2, "cut short", 9),))
    secret = secret.under(RssConfig.random(4).replace(hash_types=analysis.rss.hash_types))
    secret = replace(secret, windows=analysis.windows)
    key = Anonymizer(bytes(range(32)))
    shared = anonymize(secret, key)
    page = html(shared, anonymize(moved(secret, 5), key), by=BY)
    assert len(told(secret, html(secret, by=BY))) > 20
    assert told(shared, page)
    assert told(secret, page) == set()
    for private in ("alice", "bank", secret.rss.key.hex()):
        assert private in html(secret)
        assert private not in page
    assert "Addresses are not the real ones." in page
    for file in draw(shared, tmp_path):
        assert told(secret, file.read_text()) == set()


def test_pictures_in_a_folder(tmp_path: Path, analysis: Analysis) -> None:
    files = draw(analysis, tmp_path / "new" / "pictures", moved(analysis, 5))
    names = ["queues", "time", "imbalance", "buckets", "buckets-planned"]
    assert [file.name for file in files] == [f"{name}.svg" for name in names]
    for file in files:
        assert ElementTree.parse(file).getroot().tag == "{http://www.w3.org/2000/svg}svg"


def test_bars_are_as_high_as_the_loads(tmp_path: Path, analysis: Analysis) -> None:
    draw(analysis, tmp_path, by=BY)
    bars = re.findall(
        r'aria-label="queue (\d), now: [^"]*"[^>]* d="([^"]*)"',
        (tmp_path / "queues.svg").read_text(),
    )
    assert [int(queue) for queue, _ in bars] == [0, 1, 2, 3]
    heights = [float(path.partition("v")[2].partition("h")[0]) for _, path in bars]
    loads = analysis.by_queue.bytes.astype(float)
    assert np.allclose(np.array(heights) / max(heights), loads / loads.max(), rtol=1e-6)


@pytest.mark.parametrize("name", ["all.svg", "all.PNG"])
def test_pictures_in_a_file(tmp_path: Path, analysis: Analysis, name: str) -> None:
    assert draw(analysis, tmp_path / name) == [tmp_path / name]
    data = (tmp_path / name).read_bytes()
    if name.endswith("PNG"):
        assert data.startswith(b"\x89PNG")
        assert int.from_bytes(data[16:20], "big") > 1000
    else:
        assert data.count(b"role-mark") >= 4


def test_pictures_of_another_kind(tmp_path: Path, analysis: Analysis) -> None:
    with pytest.raises(ConfigError, match=r"all\.gif: pictures are written as"):
        draw(analysis, tmp_path / "all.gif")


def test_what_is_missing_is_named(analysis: Analysis, monkeypatch: pytest.MonkeyPatch) -> None:
    for module, use in (
        ("jinja2", lambda: html(analysis)),
        ("altair", lambda: html(analysis)),
        ("vl_convert", lambda: html(analysis)),
        ("pyarrow", lambda: flows_table(analysis)),
        ("cryptography.hazmat.primitives.ciphers", Anonymizer.random),
    ):
        with monkeypatch.context() as without:
            without.setitem(sys.modules, module, None)
            with pytest.raises(DependencyMissing) as caught:
                use()
        assert f"need {module.partition('.')[0]}" in caught.value.message
        assert caught.value.hint == "pip install 'vnethash[analysis]'"


def test_nothing_heavy_is_imported_before_it_is_used() -> None:
    code = (
        "import sys\n"
        "from vnethash.analysis import anonymize, arrow, report\n"
        "heavy = ('altair', 'vl_convert', 'jinja2', 'pyarrow', 'cryptography')\n"
        "print(*(name for name in heavy if name in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
