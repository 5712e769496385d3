# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""What tools/coverage makes of gcov's report, on C that has a line nobody reaches."""

import subprocess
from pathlib import Path

import pytest

from tests import gcov

SOURCE = """\
static int half(int x)
{
	if (x > 1000)
		return 0;
	return x / 2;
}

int main(void)
{
	return half(0);
}
"""


@pytest.fixture(name="measured")
def _measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "half.c").write_text(SOURCE)
    compiler = ["gcc", "-O0", "--coverage", "-c", "half.c", "-o", "half.o"]
    subprocess.run(compiler, cwd=tmp_path, check=True)
    subprocess.run(["gcc", "--coverage", "half.o", "-o", "half"], cwd=tmp_path, check=True)
    subprocess.run(["./half"], cwd=tmp_path, check=True)
    monkeypatch.setattr(gcov, "ROOT", tmp_path)
    monkeypatch.setattr(gcov, "ALLOWED", tmp_path / "uncovered.toml")
    monkeypatch.chdir(tmp_path)
    return str(tmp_path / "half.gcda")


def allow(lines: str) -> None:
    gcov.ALLOWED.write_text(
        f'[[uncovered]]\nfile = "half.c"\nfunction = "half"\nlines = [{lines}]\nreason = "so"\n'
    )


def test_gaps(measured: str, capsys: pytest.CaptureFixture[str]) -> None:
    allow('"if (x > 1000)"')
    assert gcov.main([measured, "half.c"]) == 1
    assert capsys.readouterr().out.splitlines() == [
        "half.c: 5 of 6 lines, 1 of 2 branches",
        "  3: if (x > 1000)",
        "      1 of 2 branches not reached: so",
        "  4: return 0;",
        "      not reached: not justified",
    ]


def test_gaps_that_are_justified(measured: str, capsys: pytest.CaptureFixture[str]) -> None:
    allow('"if (x > 1000)", "return 0;"')
    assert gcov.main([measured, "half.c"]) == 0


def test_justified_for_nothing(measured: str, capsys: pytest.CaptureFixture[str]) -> None:
    allow('"if (x > 1000)", "return 0;", "return x / 2;"')
    assert gcov.main([measured, "half.c"]) == 1
    assert "justifies what is reached, or gone: half.c: half: return x / 2;" in (
        capsys.readouterr().out
    )
