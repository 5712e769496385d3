# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""The lab without a kernel: keys, patches, the cache, and a build of a tree of four files."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

import vnethash
from vnethash.cli import main
from vnethash.errors import ConfigError, DependencyMissing
from vnethash.lab import cache as lab_cache
from vnethash.lab import kernels, options, source, tools
from vnethash.lab.build import Progress, build, refused
from vnethash.lab.errors import BuildError, LabError
from vnethash.lab.kernels import BuiltKernel
from vnethash.lab.options import Option, in_build_order, select
from vnethash.lab.source import Source
from vnethash.lab.tree import Tree

VERSION = "6.12.1-1"

# Enough of a kernel for the steps of a build: it has what they call.
MAKEFILE = """\
.DELETE_ON_ERROR:
defconfig:
\techo 'CONFIG_OLD=y' >.config
olddefconfig:
\tsed -i 's/^\\(CONFIG_.*\\)=n/# \\1 is not set/' .config
linux: main.c extra.c .config
\texec sleep $$(cat slow)
\t@echo '  CC      main.o'
\t@echo '  CC      extra.o'
\tmkdir -p include/config
\techo 6.12.1$(LOCALVERSION) >include/config/kernel.release
\tgcc -g -o linux main.c extra.c
"""
SOURCES = {
    "Makefile": MAKEFILE,
    "slow": "0\n",
    "main.c": "extern const char *way;\n#include <stdio.h>\nint main(void)\n{\n\tputs(way);\n}\n",
    "extra.c": 'const char *way = "stock";\n',
    "scripts/kconfig/merge_config.sh": '#!/bin/sh\ncat "$3" >>"$2"\n',
}
ADD_NOTES = """\
A file of its own.
---
--- /dev/null
+++ b/docs/notes
@@ -0,0 +1 @@
+common
"""
CHANGE_WAY = """\
--- a/extra.c
+++ b/extra.c
@@ -1 +1 @@
-const char *way = "stock";
+const char *way = "{way}";
"""


@pytest.fixture(autouse=True)
def _nothing_of_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "INSTALLED", tmp_path / "not installed")
    monkeypatch.setenv(lab_cache.VARIABLE, str(tmp_path / "cache"))


@pytest.fixture(name="folder")
def _folder(tmp_path: Path) -> Path:
    """A lab/ with two options that have a patch each."""
    folder = tmp_path / "lab"
    files = {
        "kernel.config": "# why\nCONFIG_NEW=y\nCONFIG_OFF=n\n",
        "patches/0001-common/0001-notes.patch": ADD_NOTES,
        "patches/0002-lab-only/0001-main.patch": "--- a/main.c\n+++ b/main.c\n@@ -4 +4 @@\n {\n"
        "-\tputs(way);\n+\tputs(way); /* lab */\n }\n".replace("@@ -4 +4 @@", "@@ -4,3 +4,3 @@"),
        "patches/tun-cb/0001-way.patch": CHANGE_WAY.format(way="cb"),
        "patches/tun-rss/0001-way.patch": CHANGE_WAY.format(way="rss"),
    }
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


@pytest.fixture(name="cache")
def _cache(tmp_path: Path) -> Path:
    """A cache that has the source."""
    cache = lab_cache.location()
    lab_cache.prepare(cache)
    if not (shutil.which("patch") and shutil.which("xz")):
        pytest.skip("this needs patch and xz (apt install patch xz-utils)")
    linux = tmp_path / "linux"
    for name, text in SOURCES.items():
        path = linux / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o755)
        os.utime(path, (1e9, 1e9))
    home = cache / "source" / VERSION
    home.mkdir()
    with tarfile.open(home / f"{source.PACKAGE}.tar.xz", "w:xz") as tar:
        tar.add(linux, source.PACKAGE)
    return cache


def found(cache: Path) -> Source:
    answer = source.find(cache)
    assert answer is not None
    return answer


def option(name: str, folder: Path) -> Option:
    return select([name], folder)[0]


# Options


def test_options_are_what_lab_has_patches_for(folder: Path) -> None:
    names = [each.name for each in options.options(folder)]
    assert names == ["tun-rss", "tun-kfunc", "tun-progtype", "tun-cb", "stock"]
    assert {each.name for each in in_build_order(options.options(folder))} == set(names)
    assert [patch.parent.name for patch in option("tun-cb", folder).patches()] == [
        *["0001-common", "0002-lab-only", "tun-cb"]
    ]
    assert option("stock", folder).patches() == ()


def test_select_takes_each_once_and_all_by_default(folder: Path) -> None:
    assert [each.name for each in select(["stock", "tun-cb", "stock"], folder)] == [
        *["stock", "tun-cb"]
    ]
    assert select([], folder) == options.options(folder)
    with pytest.raises(ConfigError, match="'tun' is none of tun-rss, tun-kfunc"):
        select(["tun"], folder)


def test_option_without_patches(folder: Path) -> None:
    with pytest.raises(LabError, match="tun-kfunc has no patches"):
        option("tun-kfunc", folder).patches()


def test_without_a_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(options, "__file__", str(tmp_path / "a/b/c/options.py"))
    with pytest.raises(LabError, match="of a checkout") as caught:
        options.options()
    assert "clone the repository" in (caught.value.hint or "")


# Keys

CHANGES: dict[str, Callable[[Path], object]] = {
    "patch": lambda folder: (folder / "patches/tun-cb/0001-way.patch").write_text(
        CHANGE_WAY.format(way="another")
    ),
    "shared patch": lambda folder: (folder / "patches/0001-common/0001-notes.patch").write_text(
        ADD_NOTES.replace("+common", "+uncommon")
    ),
    "one more patch": lambda folder: shutil.copy(
        folder / "patches/0001-common/0001-notes.patch", folder / "patches/tun-cb/0002.patch"
    ),
    "configuration": lambda folder: (folder / "kernel.config").write_text("CONFIG_NEW=n\n"),
}
SOURCE = Source(Path("/nowhere"), VERSION, "ab" * 32)


def key(folder: Path, of: Source = SOURCE) -> str:
    return kernels.key_of(kernels.inputs(option("tun-cb", folder), of))


@pytest.mark.parametrize("change", CHANGES)
def test_another_key_for_another(change: str, folder: Path) -> None:
    before = key(folder)
    assert key(folder) == before
    CHANGES[change](folder)
    assert key(folder) != before


def test_another_key_for_another_source_or_compiler(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    versions = tools.versions()
    keys = [
        key(folder),
        key(folder, replace(SOURCE, version="6.12.2-1")),
        key(folder, replace(SOURCE, sha256="cd" * 32)),
    ]
    for name in versions:
        monkeypatch.setattr(tools, "versions", lambda name=name: {**versions, name: "0.0"})
        keys.append(key(folder))
    assert len(set(keys)) == 5
    monkeypatch.setattr(tools, "versions", lambda: versions)
    assert key(folder, replace(SOURCE, tarball=Path("/elsewhere"))) == keys[0]


def test_another_order_of_patches_is_another_key(folder: Path) -> None:
    one, other = folder / "patches/tun-cb/0001-way.patch", folder / "patches/tun-cb/0002-b.patch"
    other.write_text(ADD_NOTES)
    before = key(folder)
    one.rename(folder / "patches/tun-cb/0003-way.patch")
    assert key(folder) != before


# The source, and the tree it becomes


def test_source_is_remembered_and_read_again_when_it_changed(cache: Path) -> None:
    first = found(cache)
    assert (first.version, len(first.sha256)) == (VERSION, 64)
    memory = cache / "source" / "sha256.json"
    memory.write_text(memory.read_text().replace(first.sha256, "remembered"))
    assert found(cache).sha256 == "remembered"
    os.utime(first.tarball, (2e9, 2e9))
    assert found(cache) == first


def test_no_source_and_no_apt(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert source.find(tmp_path) is None
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DependencyMissing, match="apt-get") as caught:
        source.download(tmp_path)
    assert "Debian" in (caught.value.hint or "")


def test_apt_that_cannot_fetch(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    apt = tmp_path / "apt-get"
    apt.write_text("#!/bin/sh\necho 'E: Unable to locate package' >&2; exit 100\n")
    apt.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    with pytest.raises(LabError, match="Unable to locate package") as caught:
        source.download(tmp_path)
    assert "apt update" in (caught.value.hint or "")
    assert list((tmp_path / "source").iterdir()) == []


@pytest.fixture(name="tree")
def _tree(cache: Path) -> Tree:
    return Tree.unpack(cache / "tree", found(cache))


def content(tree: Tree) -> dict[str, str]:
    return {
        str(path.relative_to(tree.linux)): path.read_text()
        for path in tree.linux.rglob("*")
        if path.is_file()
    }


def test_tree_becomes_one_option_after_the_other(tree: Tree, folder: Path) -> None:
    assert content(tree) == SOURCES
    tree.become(option("tun-cb", folder).patches())
    patched = content(tree)
    assert patched["docs/notes"] == "common\n"
    assert '"cb"' in patched["extra.c"]
    assert "/* lab */" in patched["main.c"]
    tree.become(option("tun-rss", folder).patches())
    assert content(tree) == {**patched, "extra.c": patched["extra.c"].replace("cb", "rss")}
    tree.become(())
    assert content(tree) == SOURCES


def test_only_what_changes_is_written(tree: Tree, folder: Path) -> None:
    tree.become(option("tun-cb", folder).patches())
    for path in tree.linux.rglob("*"):
        os.utime(path, (1e9, 1e9))
    tree.become(option("tun-rss", folder).patches())
    fresh = [path.name for path in tree.linux.rglob("*.*") if path.stat().st_mtime > 1e9]
    assert fresh == ["extra.c"]


def test_patch_that_does_not_apply_leaves_the_tree(tree: Tree, folder: Path) -> None:
    tree.become(option("tun-cb", folder).patches())
    before = content(tree)
    bad = folder / "patches/tun-rss/0002-bad.patch"
    bad.write_text("--- a/main.c\n+++ b/main.c\n@@ -1 +1 @@\n-no such line\n+another\n")
    with pytest.raises(LabError, match=r"cannot apply tun-rss/0002-bad\.patch: .*FAILED"):
        tree.become(option("tun-rss", folder).patches())
    assert content(tree) == before


def test_what_a_patch_of_before_made_goes_with_it(tree: Tree, folder: Path) -> None:
    tree.become(option("tun-cb", folder).patches())
    (folder / "patches/0001-common/0001-notes.patch").write_text(
        ADD_NOTES.replace("docs/notes", "docs/others")
    )
    tree.become(option("tun-cb", folder).patches())
    names = content(tree)
    assert "docs/notes" not in names
    assert "docs/others" in names


def test_change_cut_short_is_completed(
    tree: Tree, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree.become(option("tun-cb", folder).patches())
    wanted = content(tree)
    tree.become(())

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", interrupt)
        with pytest.raises(KeyboardInterrupt):
            tree.become(option("tun-cb", folder).patches())
    tree.become(option("tun-cb", folder).patches())
    assert {name: text for name, text in content(tree).items() if ".new" not in name} == wanted


def test_tree_is_unpacked_once(cache: Path, tree: Tree) -> None:
    (tree.linux / "made").write_text("object")
    again = Tree.unpack(cache / "tree", found(cache))
    assert (again.linux / "made").exists()
    Tree.unpack(cache / "tree", replace(found(cache), sha256="another"))
    assert not (again.linux / "made").exists()


def test_tree_of_a_make_that_was_killed(cache: Path, tree: Tree) -> None:
    whole, half = tree.linux / "whole.o", tree.linux / "half.o"
    whole.write_text("object")
    os.utime(whole, (1e9, 1e9))
    tree.start()
    half.write_text("obj")
    Tree.unpack(cache / "tree", found(cache))
    assert (whole.exists(), half.exists()) == (True, False)

    tree.start()
    half.write_text("object")
    tree.finish("stock")
    again = Tree.unpack(cache / "tree", found(cache))
    assert (again.option, half.exists()) == ("stock", True)


def test_disk_without_room(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vnethash.lab.tree.ROOM", 1 << 60)
    with pytest.raises(LabError, match=r"needs \d+ GiB"):
        Tree.unpack(cache / "tree", found(cache))


# The cache


def test_where_the_cache_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(lab_cache.VARIABLE)
    monkeypatch.setenv("XDG_CACHE_HOME", "/var/cache/me")
    assert lab_cache.location() == Path("/var/cache/me/vnethash/lab")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/home/me")
    assert lab_cache.location() == Path("/home/me/.cache/vnethash/lab")
    monkeypatch.setenv(lab_cache.VARIABLE, "/home/me/my cache")
    with pytest.raises(ConfigError, match="space or colon"):
        lab_cache.location()


def test_clean_removes_what_is_ours(cache: Path) -> None:
    (cache / "notes").write_text("mine")
    assert lab_cache.clean(cache) > 0
    assert {path.name for path in cache.iterdir()} == {"CACHEDIR.TAG", "lock", "notes"}
    assert lab_cache.clean(cache.parent / "nowhere") == 0


def test_clean_refuses_a_folder_of_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "tree").mkdir()
    (tmp_path / "CACHEDIR.TAG").write_text("Signature: 8a477f597d28d172789f06886806bc55\n# cargo\n")
    monkeypatch.setenv(lab_cache.VARIABLE, str(tmp_path))
    assert main.run(["lab", "clean"]) == 1
    assert "did not make" in capsys.readouterr().err
    assert (tmp_path / "tree").is_dir()


def test_two_do_not_change_the_cache_at_once(cache: Path) -> None:
    waits: list[bool] = []
    code = (
        "import sys, time; from pathlib import Path; from vnethash.lab import cache\n"
        "with cache.locked(Path(sys.argv[1])):\n print(flush=True); time.sleep(0.5)"
    )
    command = [sys.executable, "-c", code, str(cache)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        other.stdout.readline()
        with lab_cache.locked(cache, lambda: waits.append(other.poll() is None)):
            assert other.poll() is not None or other.wait(5) == 0
    assert waits == [True]


# Tools


def test_missing_tools_are_named_at_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert tools.missing() == sorted({*tools.PROGRAMS, *tools.HEADERS})
    with pytest.raises(DependencyMissing, match="bison, dpkg, flex, gcc") as caught:
        tools.check()
    assert (caught.value.hint or "").startswith("as root: apt install bc binutils bison ")


def test_missing_header(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tools, "HEADERS", {"libnosuch-dev": "nosuch/header.h"})
    assert "libnosuch-dev" in tools.missing()


# A build


@pytest.fixture(name="ready")
def _ready(cache: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """As if all tools were here: a tree of four files needs few of them."""
    monkeypatch.setattr(tools, "check", lambda: None)
    return cache


def says(kernel: BuiltKernel) -> str:
    done = subprocess.run([kernel.path], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_build(ready: Path, folder: Path) -> None:
    steps: list[Progress] = []
    seen: list[tuple[str, bool]] = []
    chosen = select(["stock", "tun-rss", "tun-cb"], folder)
    made = build(
        chosen,
        progress=steps.append,
        done=lambda kernel, fresh: seen.append((kernel.option, fresh)),
    )
    assert [kernel.option for kernel in made] == ["stock", "tun-rss", "tun-cb"]
    assert [says(kernel) for kernel in made] == ["stock", "rss", "cb"]
    assert [kernel.release for kernel in made] == [
        *["6.12.1-stock", "6.12.1-tun-rss", "6.12.1-tun-cb"]
    ]
    assert seen == [("tun-cb", True), ("tun-rss", True), ("stock", True)]
    assert [kernels.built(each) for each in chosen] == made
    assert (
        made[0].config.read_text() == "CONFIG_OLD=y\n# why\nCONFIG_NEW=y\n# CONFIG_OFF is not set\n"
    )
    assert made[0].manifest["config_refused"] == []
    assert made[0].manifest["compiled"] == 2
    assert made[0].size == made[0].path.stat().st_size
    assert {"unpacking the source", "compiling"} <= {each.step for each in steps}
    assert not (ready / "tree").exists()

    steps.clear()
    seen.clear()
    begun = time.monotonic()
    assert build(chosen, progress=steps.append, done=lambda k, new: seen.append((k.option, new)))
    assert time.monotonic() - begun < 1
    assert (steps, {fresh for _, fresh in seen}) == ([], {False})


def test_build_goes_on_from_the_tree_that_was_kept(ready: Path, folder: Path) -> None:
    build(select(["stock"], folder), keep_tree=True)
    made = ready / "tree" / "linux" / "linux"
    before = made.stat().st_mtime_ns
    (kernel,) = build(select(["tun-cb"], folder), keep_tree=True)
    assert made.stat().st_mtime_ns > before
    assert (kernel.manifest["after"], says(kernel)) == ("stock", "cb")


def test_build_that_fails_shows_what_make_said(ready: Path, folder: Path) -> None:
    patch = folder / "patches/tun-cb/0001-way.patch"
    patch.write_text(CHANGE_WAY.format(way='cb" 1 "'))
    with pytest.raises(BuildError, match="cannot build tun-cb: exit status 2") as caught:
        build(select(["tun-cb"], folder))
    assert "error: expected" in caught.value.tail
    assert caught.value.log.read_text().endswith(caught.value.tail)
    assert kernels.built(option("tun-cb", folder)) is None
    patch.write_text(CHANGE_WAY.format(way="cb"))
    assert [says(kernel) for kernel in build(select(["tun-cb"], folder))] == ["cb"]


def test_patch_that_changes_meanwhile_makes_no_kernel(ready: Path, folder: Path) -> None:
    def change(progress: Progress) -> None:
        if progress.step == "configuring":
            CHANGES["patch"](folder)

    chosen = select(["tun-cb"], folder)
    with pytest.raises(LabError, match="changed while"):
        build(chosen, progress=change)
    assert list((ready / "kernels").iterdir()) == []
    assert [says(kernel) for kernel in build(chosen)] == ["another"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_build_that_is_ended_goes_on_later(
    number: signal.Signals, ready: Path, folder: Path
) -> None:
    tree = Tree.unpack(ready / "tree", found(ready))
    slow = tree.linux / "slow"
    slow.write_text("30\n")
    code = (
        "import signal, sys; from pathlib import Path; from vnethash.lab import tools\n"
        # A shell has its background jobs ignore it, and so would this process.
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "tools.check = lambda: None\n"
        "from vnethash.lab.build import build; from vnethash.lab.options import select\n"
        "build(select(['tun-cb'], Path(sys.argv[1])))"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(vnethash.__file__).parents[1])}
    command = [sys.executable, "-c", code, str(folder)]
    with subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL) as other:
        deadline = time.monotonic() + 20
        log = ready / "logs" / "tun-cb.log"
        while "sleep" not in (log.read_text() if log.exists() else ""):
            assert time.monotonic() < deadline, "make has not begun"
            time.sleep(0.02)
        other.send_signal(number)
        other.wait(15)
    slow.write_text("0\n")
    os.utime(slow, (1e9, 1e9))  # as the rest of the source: what is new is deleted
    begun = time.monotonic()
    (kernel,) = build(select(["tun-cb"], folder))
    assert time.monotonic() - begun < 15, "it waited for the make of before"
    assert says(kernel) == "cb"


def test_lines_that_a_configuration_does_not_follow() -> None:
    fragment = "# why\nCONFIG_A=y\nCONFIG_B=n\nCONFIG_C=n\nCONFIG_D=y\nCONFIG_E=4\n"
    config = "CONFIG_A=y\n# CONFIG_B is not set\nCONFIG_C=y\n# CONFIG_D is not set\nCONFIG_E=4\n"
    assert refused(fragment, config) == ["CONFIG_C=n", "CONFIG_D=y"]


# The command line

BAD = [
    (["build", "--option", "tun"], "option"),
    (["run", "--option", "tun", "--", "true"], "option"),
    (["run", "--option", "stock", "--env", "A", "--", "true"], "env"),
    (["run", "--option", "stock", "--env", "=A", "--", "true"], "env"),
    (["run", "--option", "stock", "--mem", "512", "--", "true"], "mem"),
    (["run", "--option", "stock", "--mem", "8M", "--", "true"], "mem"),
    (["run", "--option", "stock", "--", "true"], "option"),  # not built
]


@pytest.mark.parametrize(("args", "field"), BAD)
def test_bad_values(
    args: list[str],
    field: str,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(options, "checkout", lambda: folder.parent)
    assert main.run(["lab", *args]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"vnethash: error: {field}: ")


def test_run_of_what_is_not_built_says_how_to(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(options, "checkout", lambda: folder.parent)
    assert main.run(["lab", "run", "--option", "tun-cb", "uname", "-r"]) == 2
    _, hint = capsys.readouterr().err.splitlines()
    assert hint == "vnethash: hint: vnethash lab build --option tun-cb"


@pytest.mark.parametrize("args", [["run"], ["run", "--option", "stock"], ["build", "-j", "0"], []])
def test_wrong_use(args: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["lab", *args]) == 2
    assert "see `vnethash lab" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["build", "run", "list", "clean"])
def test_every_command_has_help_with_an_example(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.run(["lab", name, "--help"]) == 0
    assert f"Examples:\n    vnethash lab {name}" in capsys.readouterr().out


def test_build_and_list_at_the_command_line(
    ready: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(options, "checkout", lambda: folder.parent)
    build_cb = ["lab", "build", "--option", "tun-cb"]
    assert main.run([*build_cb, "--json"]) == 0
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    progress = [each for each in events if each["event"] == "progress"]
    (last,) = [each for each in events if each not in progress]
    assert {"option", "step", "done", "total", "seconds"} <= progress[0].keys()
    assert (last["event"], last["built"], last["option"]) == ("kernel", True, "tun-cb")
    assert Path(last["path"]).exists()

    assert main.run(build_cb) == 0
    out, err = capsys.readouterr()
    assert out == f"tun-cb: 6.12.1-tun-cb, there already, {last['path']}\n"
    assert err == ""

    assert main.run(["lab", "list", "--json"]) == 0
    states = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {each["option"]: each["state"] for each in states} == {
        "tun-rss": "not built",
        "tun-kfunc": "no patches",
        "tun-progtype": "no patches",
        "tun-cb": "built",
        "stock": "not built",
    }
    CHANGES["patch"](folder)
    assert main.run(["lab", "list"]) == 0
    assert "outdated" in capsys.readouterr().out


def test_build_that_fails_at_the_command_line(
    ready: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(options, "checkout", lambda: folder.parent)
    (folder / "patches/tun-cb/0001-way.patch").write_text(CHANGE_WAY.format(way='"'))
    assert main.run(["lab", "build", "--option", "tun-cb"]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert any("missing terminating" in line for line in lines)
    assert lines[-2] == "vnethash: error: cannot build tun-cb: exit status 2"
    assert lines[-1].endswith("logs/tun-cb.log")
