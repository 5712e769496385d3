# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""`vnethash lab compare`: what is counted and read, and that the page is what was measured."""

import copy
import json
import random
import threading
from pathlib import Path
from string import Template
from typing import Any

import pytest

from vnethash.cli import main
from vnethash.errors import ConfigError
from vnethash.lab.compare import lines, measure, page, picture
from vnethash.lab.errors import LabError
from vnethash.lab.inside import frames, own_programs, suite
from vnethash.lab.inside.task import MARK, Task
from vnethash.rss import reference, vectors
from vnethash.rss.config import RssConfig

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "lab" / "results.json"
AGAIN = "vnethash lab compare --json lab/results.json"


@pytest.fixture(name="results")
def _results() -> Any:
    return json.loads(RESULTS.read_text())


def test_the_page_is_what_the_results_give(results: Any) -> None:
    written = (ROOT / "docs" / "three-ways.md").read_text()
    assert written == page.render(results, page.template().read_text()), AGAIN
    assert (ROOT / "docs" / "three-ways.svg").read_text() == picture.draw(results), AGAIN


def test_the_prose_says_nothing_that_was_not_measured(results: Any) -> None:
    assert page.claims(results) == []
    assert not results["quick"]


def test_the_results_are_of_the_patches_there_are(results: Any) -> None:
    assert results["lines"] == measure.count_lines(), AGAIN


def test_a_claim_that_fails_is_told(results: Any) -> None:
    worse = copy.deepcopy(results)
    worse["kernels"]["tun-cb"]["agreement"]["tun-cb"]["groups"]["UDPv4"][0] -= 1
    worse["kernels"]["stock"]["suite"]["failed"] = [{"test": "x", "said": "y"}]
    assert page.claims(worse) == [
        "every frame and vector agrees with the reference, by every way",
        "no kernel test fails",
    ]


def test_results_with_gaps_make_no_page(results: Any) -> None:
    text = page.template().read_text()
    with pytest.raises(ConfigError, match="has format 0, not 1"):
        page.render({**results, "format": 0}, text)
    gap = {**results, "kernels": {**results["kernels"]}}
    del gap["kernels"]["tun-rss"]
    with pytest.raises(LabError, match="not here: tun-rss"):
        page.render(gap, text)
    failed = copy.deepcopy(results)
    failed["kernels"]["host"]["errors"]["cost"] = "no JIT"
    with pytest.raises(ConfigError, match="on host cost failed: no JIT"):
        page.render(failed, text)


def test_the_template_uses_every_number_made_for_it(results: Any) -> None:
    used = set(Template(page.template().read_text()).get_identifiers())
    made = page._values(results).keys()
    assert used <= made
    # Of the kernels of the lab the page tells what a plain packet costs on one.
    assert {name for name in made - used if not name.startswith("plain_")} == set()


PATCH = """\
Subject: [PATCH] a thing

--- a/drivers/net/tun.c is not a file here
diff --git a/drivers/net/tun.c b/drivers/net/tun.c
--- a/drivers/net/tun.c
+++ b/drivers/net/tun.c
@@ -1,6 +1,14 @@ int before(void)
 context;
-old;
+new;
+
+/* one line */
+int x; /* beside code */
+/* several
+ * lines
+ */
+// another
+++counter;
 /* of the context
+ * a line in it
  */
-gone;
diff --git a/include/uapi/linux/if_tun.h b/include/uapi/linux/if_tun.h
--- a/include/uapi/linux/if_tun.h
+++ b/include/uapi/linux/if_tun.h
@@ -3 +3,2 @@
 #define A
+#define B
diff --git a/drivers/net/Kconfig b/drivers/net/Kconfig
--- a/drivers/net/Kconfig
+++ b/drivers/net/Kconfig
@@ -3 +3,3 @@
 config TUN
+# a comment
+select B
diff --git a/tools/lib/bpf/libbpf.c b/tools/lib/bpf/libbpf.c
--- a/tools/lib/bpf/libbpf.c
+++ b/tools/lib/bpf/libbpf.c
@@ -3 +3,2 @@
 a;
+b;
diff --git a/Documentation/x.rst b/Documentation/x.rst
--- a/Documentation/x.rst
+++ b/Documentation/x.rst
@@ -3 +3,3 @@
 a
+# a heading
+
--
2.39.5
"""


def test_lines_of_code_are_counted(tmp_path: Path) -> None:
    patch = tmp_path / "0001-a-thing.patch"
    patch.write_text(PATCH)
    assert lines.count([patch]) == {
        "kernel": 4,  # new; int x; ++counter; select B
        "uapi": 1,
        "libbpf": 1,
        "documentation": 1,
        "added": 16,
        "removed": 2,
        "files": 5,
    }


def test_a_report_of_pytest_is_read() -> None:
    report = suite.read_report("""
      <testsuites><testsuite>
        <testcase classname="tests.kernel.test_tap" name="test_a"/>
        <testcase classname="tests.kernel.test_tap" name="test_b">
          <failure message="assert 1&#10;  == 2">long</failure></testcase>
        <testcase classname="tests.kernel.test_tap" name="test_c">
          <skipped type="pytest.skip" message="no tcx"/></testcase>
        <testcase classname="tests.kernel.test_tc" name="test_d"><error message="broke"/></testcase>
      </testsuite></testsuites>""")
    assert report == {
        "total": {"passed": 1, "failed": 2, "skipped": 1},
        "files": {
            "tests/kernel/test_tap.py": {"passed": 1, "failed": 1, "skipped": 1},
            "tests/kernel/test_tc.py": {"failed": 1},
        },
        "skipped": {"no tcx": 1},
        "failed": [
            {"test": "tests/kernel/test_tap.py::test_b", "said": "assert 1 == 2"},
            {"test": "tests/kernel/test_tc.py::test_d", "said": "broke"},
        ],
    }


def answers(stop: threading.Event | None = None) -> tuple[Any, dict[str, Any], list[str]]:
    results: dict[str, Any] = {"errors": {}}
    said: list[str] = []
    return measure._Answers("stock", results, said.append, stop), results, said


def test_answers_are_taken_from_what_is_printed() -> None:
    take, results, said = answers()
    line = MARK + json.dumps({"part": "facts", "result": {"jit": False}, "seconds": 0.1})
    text = f"a warning\n{line}\n{MARK}" + '{"part": "cost", "error": "no", "seconds": 1}\nend'
    for byte in text.encode():  # however it is cut
        take(bytes([byte]))
    assert results == {"facts": {"jit": False}, "errors": {"cost": "no"}}
    assert said == ["stock: facts, 0.1 s", "stock: cost failed: no"]
    assert take.other == "a warning\n"


def test_who_is_stopped_stops() -> None:
    stop = threading.Event()
    take, _, _ = answers(stop)
    take(b"test 1 PASSED\n")
    stop.set()
    with pytest.raises(measure.Stopped):
        take(b"test 2 PASSED\n")


def test_a_task_survives_the_command_line() -> None:
    task = Task(("ebpf", "tun-cb"), "tun-cb", (("xor", "/tmp/xor.o"),), ("tests/x.py",), True)
    assert Task.from_json(task.to_json()) == task


def test_frames_are_what_they_are_called() -> None:
    config = RssConfig.default(4)
    groups = frames.groups(8)
    reports = {
        name: {reference.classify(frame, config).hash_report.name for frame in sent}
        for name, sent in groups.items()
    }
    own = ("IPv4", "TCPv4", "UDPv4", "IPv6", "TCPv6", "UDPv6", "IPv6_EX", "TCPv6_EX", "UDPv6_EX")
    assert {name: reports[name] for name in own} == {name: {name} for name in own}
    assert {name: found for name, found in reports.items() if name not in own} == {
        "IPv4 fragment, first": {"IPv4"},
        "IPv4 fragment, last": {"IPv4"},
        "IPv6 fragment, first": {"IPv6_EX"},
        "IPv6 fragment, last": {"IPv6_EX"},
        "IPv4 options": {"TCPv4"},
        "IPv6 options": {"UDPv6_EX"},
        "VLAN": {"UDPv4"},
        "VLAN in VLAN": {"TCPv6"},
        "not IP": {"NONE"},
    }
    everything = [frame for sent in groups.values() for frame in sent]
    assert len(set(everything)) == len(everything)
    assert frames.groups(8) == groups


@pytest.mark.parametrize("flow", vectors.VECTORS, ids=lambda flow: flow.source)
def test_vectors_are_what_was_published(flow: vectors.Vector) -> None:
    config = RssConfig.default(4).replace(key=vectors.KEY)
    for protocol, wanted in ((6, flow.tcp_hash), (17, flow.tcp_hash), (None, flow.address_hash)):
        assert reference.classify(frames.vector(flow, protocol), config).hash_value == wanted


def test_tunnels_hide_their_flows_from_plain_rss() -> None:
    """Else the outer headers would do, and nothing would be shown."""
    config = RssConfig.default(4)
    verdicts = own_programs._tunnelled(config)
    tunnelled = [frame for frame in verdicts if frame[14] >> 4 == 4 and frame[23] in (17, 47)]
    outer = {reference.classify(own_programs._vxlan(bytes([n]) * 60), config) for n in range(9)}
    assert len(outer) == 1
    assert len({verdicts[frame] for frame in tunnelled}) > 16
    chance = random.Random(5)
    assert frames.packet(chance, frames.ipv4, 6) != frames.packet(chance, frames.ipv4, 6)


def test_command_makes_the_page_from_results(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "page.md"
    command = ["lab", "compare", "--from-json", str(RESULTS), "--output", str(output)]
    assert main.run(command) == 0, capsys.readouterr().err
    assert output.read_text() == (ROOT / "docs" / "three-ways.md").read_text()
    assert output.with_suffix(".svg").exists()


@pytest.mark.parametrize("text", [None, "", "[]", '{"format": 7, "kernels": {}}'])
def test_command_refuses_what_are_no_results(
    text: str | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "results.json"
    if text is not None:
        file.write_text(text)
    page_there = tmp_path / "page.md"
    command = ["lab", "compare", "--from-json", str(file), "--output", str(page_there)]
    assert main.run(command) == main.EXIT_USAGE
    assert "from-json" in capsys.readouterr().err
    assert not page_there.exists()


def test_command_says_first_which_kernels_are_missing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(measure, "kernels", lambda: {"stock": None, "debian": None})
    assert main.run(["lab", "compare"]) == main.EXIT_FAILURE
    err = capsys.readouterr().err
    assert "not here: host, tun-rss, tun-kfunc, tun-progtype, tun-cb" in err
    assert "vnethash lab build" in err
