# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""The program ``vnethash``: its commands, and how it fails.

Command modules import at their top only what is quick (Typer, the errors);
what they work with is imported when the command runs.
"""

import itertools
import os
import sys
from collections.abc import Callable, Sequence
from typing import Annotated

import typer

from vnethash.cli.analyze import analyze_command
from vnethash.cli.attach import attach_command
from vnethash.cli.balance import balance_command
from vnethash.cli.bench import bench_command
from vnethash.cli.build import build_program_command
from vnethash.cli.configure import configure_command
from vnethash.cli.demo import demo_command
from vnethash.cli.detach import detach_command
from vnethash.cli.hash import hash_command
from vnethash.cli.lab import build_command, clean_command, list_command, run_command
from vnethash.cli.lab_compare import compare_command
from vnethash.cli.output import print_error, print_failure
from vnethash.cli.plan import plan_command
from vnethash.cli.probe import probe_command
from vnethash.cli.replay import replay_command
from vnethash.cli.report import report_command
from vnethash.cli.serve import serve_command
from vnethash.cli.show import show_command
from vnethash.cli.stats import stats_command
from vnethash.cli.vectors import (
    check_command,
    export_command,
    list_vectors_command,
    show_vector_command,
)
from vnethash.errors import ConfigError, VnethashError

EXIT_FAILURE = 1
EXIT_USAGE = 2
EXIT_INTERRUPTED = 130

# What Typer raises for a command line it does not accept: the base of
# BadParameter's base. Typer has no public name for it.
_TyperError: type[Exception] = typer.BadParameter.__mro__[2]


def _examples(*lines: str) -> str:
    """An epilog of example lines, each as it stands (``\\b``)."""
    return "\n  ".join(["\b\nExamples:", *lines])


def _version(wanted: bool) -> None:
    if wanted:
        from vnethash import __version__

        typer.echo(f"vnethash {__version__}")
        raise typer.Exit


app = typer.Typer(
    name="vnethash",
    # Plain help: rich would double the time it takes, and read an address in
    # brackets as markup.
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=_examples(
        "vnethash hash 66.9.149.187:2794 161.142.100.80:1766 --proto tcp --explain",
        "vnethash probe",
    ),
)


@app.callback()
def _program(
    version: Annotated[
        bool,
        typer.Option(
            "--version", "-V", callback=_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    """RSS steering and hash reporting for Linux tap devices, in eBPF."""


def _register(
    name: str, command: Callable[..., object], *examples: str, group: typer.Typer = app
) -> None:
    # What follows the first operand of `lab run` is not for us.
    settings = {"allow_interspersed_args": command is not run_command}
    group.command(name, epilog=_examples(*examples), context_settings=settings)(command)


_register(
    "hash",
    hash_command,
    "vnethash hash 66.9.149.187:2794 161.142.100.80:1766 --proto tcp --explain",
    "vnethash hash [2001:db8::1]:53 [2001:db8::2]:4096 --proto udp --queues 8 --json",
    "vnethash hash 192.0.2.1 192.0.2.2 --proto none --indirection 0,1,2,3",
)
_register(
    "probe",
    probe_command,
    "vnethash probe",
    "vnethash probe --json",
    "vnethash probe --verifier --program program.o",
)
_register(
    "demo",
    demo_command,
    "vnethash demo",
    "vnethash demo --queues 8 --engine software --seed 7",
    "vnethash demo --json",
)
_register(
    "replay",
    replay_command,
    "vnethash replay capture.pcap",
    "vnethash replay capture.pcapng --queues 8 --types tcpv4,ipv4 --json",
    "vnethash replay capture.pcap --engine software --reporting off",
    "tcpdump -w - -c 100 | vnethash replay - --engine native",
)
_register(
    "analyze",
    analyze_command,
    "vnethash analyze capture.pcap --queues 8",
    "vnethash analyze captures/ more.pcapng.zst --config rss.json --json",
    "vnethash analyze conn.log.gz nfdump.csv flows.parquet --queues 8",
    "vnethash analyze s3://captures/2026-11 --cluster tcp://192.0.2.1:8786",
    "tcpdump -i eth0 -w - -c 100000 | vnethash analyze - --window 10ms --windows",
)
_register(
    "plan",
    plan_command,
    "vnethash plan capture.pcap --queues 8",
    "ethtool -x eth0 | vnethash plan capture.pcapng --present - --few-moves",
    "vnethash plan captures/ --by bytes --symmetric --output plan.json",
    "vnethash plan capture.pcap --for-ethtool --device eth1 --json",
    "vnethash plan --find-port 192.0.2.1 198.51.100.7:443 --queue 3 --queues 8",
)
_register(
    "report",
    report_command,
    "vnethash report capture.pcap --queues 8 --output report.html",
    "vnethash report captures/ --config rss.json --plan --plot pictures",
    "vnethash report capture.pcap --anonymize-key site.key --plot report.png",
)
_register(
    "bench",
    bench_command,
    "vnethash bench",
    "vnethash bench bulk --repeat 31",
    "vnethash bench --quick --json",
    "vnethash bench path --save before.json",
    "vnethash bench --from before.json --plot plots",
    "vnethash bench path --compare before.json",
)
_register(
    "build",
    build_program_command,
    "vnethash build program.c",
    "vnethash build program.c -o /tmp/program.o --load",
    'vnethash build program.c --cc "clang -target bpf" -D QUEUE=3',
)
_register(
    "attach",
    attach_command,
    "vnethash attach tap0",
    "vnethash attach tap0 --reporting record --types tcpv4,ipv4 --indirection 0,1,2,3",
    "ethtool -x eth0 | vnethash attach tap0 --from-ethtool -",
    "vnethash attach tap0 --adaptive",
)
_register(
    "show",
    show_command,
    "vnethash show tap0",
    "vnethash show tap0 --json > tap0.json",
    "vnethash show",
)
_register(
    "stats",
    stats_command,
    "vnethash stats tap0",
    "vnethash stats tap0 --watch --interval 0.5",
    "vnethash stats tap0 --watch --json",
)
_register(
    "configure",
    configure_command,
    "vnethash configure tap0 --indirection 0,0,0,1",
    "vnethash configure tap0 --reporting rehash",
    "vnethash configure tap0 --config tap0.json",
)
_register(
    "balance",
    balance_command,
    "vnethash balance tap0",
    "vnethash balance tap0 --interval 500ms --tolerance 5%",
    "vnethash balance tap0 --once --dry-run --json",
)
_register(
    "serve",
    serve_command,
    "vnethash serve --socket /run/vm0.sock --tap tap0",
    "vnethash serve --socket vm0.sock --tap tap0 --queue-pairs 2 --features=-rss --json",
    "vnethash serve --socket vm0.sock --tap tap0 --program quic.o --state vm0.json",
    "vnethash serve --socket vm0.sock --tap tap0 --features=-hash_report --adaptive",
)
_register("detach", detach_command, "vnethash detach tap0")

lab = typer.Typer(
    name="lab",
    help="Kernels of our own: other ways of reporting, to run and compare.",
    rich_markup_mode=None,
    epilog=_examples("vnethash lab list", "vnethash lab build"),
)
app.add_typer(lab)
_register(
    "build",
    build_command,
    "vnethash lab build",
    "vnethash lab build --option tun-cb --option stock --jobs 8",
    group=lab,
)
_register(
    "run",
    run_command,
    "vnethash lab run --option tun-cb -- uname -r",
    "vnethash lab run --option stock --timeout 60 -- vnethash demo --queues 2",
    group=lab,
)
_register("list", list_command, "vnethash lab list", "vnethash lab list --json", group=lab)
_register(
    "compare",
    compare_command,
    "vnethash lab compare --json results.json",
    "vnethash lab compare --from-json lab/results.json",
    group=lab,
)
_register("clean", clean_command, "vnethash lab clean", group=lab)

vectors = typer.Typer(
    name="vectors",
    help="Test vectors: does another implementation of RSS hashing conform, and where not.",
    rich_markup_mode=None,
    epilog=_examples("vnethash vectors check", 'vnethash vectors check --command "./rss --json"'),
)
app.add_typer(vectors)
_register(
    "check",
    check_command,
    'vnethash vectors check --command "./rss --json"',
    "vnethash vectors check --command ./rss --only microsoft --only 'ipv4/*'",
    "vnethash vectors check --engine ebpf --by statement",
    group=vectors,
)
_register(
    "export",
    export_command,
    "vnethash vectors export > vectors.jsonl",
    "vnethash vectors export --format pcapng -o vectors.pcapng",
    "vnethash vectors export --format c --only ipv4 -o vectors.h",
    "vnethash vectors export --format json -o vectors",
    group=vectors,
)
_register(
    "list",
    list_vectors_command,
    "vnethash vectors list",
    "vnethash vectors list --only 'mobile/home-*' --json",
    group=vectors,
)
_register("show", show_vector_command, "vnethash vectors show mobile/both-tcp", group=vectors)


def _run(args: list[str], as_json: bool) -> int:
    try:
        # Not standalone: Typer would print errors its own way.
        code = app(args, prog_name="vnethash", standalone_mode=False)
    except ConfigError as e:
        print_failure(e, as_json=as_json)
        return EXIT_USAGE
    except VnethashError as e:
        print_failure(e, as_json=as_json)
        return EXIT_FAILURE
    except _TyperError as e:
        context = getattr(e, "ctx", None)
        command = context.command_path if context else "vnethash"
        message = getattr(e, "format_message", e.__str__)()
        message = message[:1].lower() + message[1:].rstrip(".")
        hint = f"see `{command} --help`"
        print_error(message, kind="UsageError", hint=hint, as_json=as_json)
        return EXIT_USAGE
    except (KeyboardInterrupt, typer.Abort):
        return EXIT_INTERRUPTED
    except MemoryError:
        print_error("out of memory", kind="MemoryError", hint=None, as_json=as_json)
        return EXIT_FAILURE
    except OSError as e:
        # The wrappers name what they do; this is output to a full disk and the like.
        print_error(_os_reason(e), kind="OSError", hint=None, as_json=as_json)
        return EXIT_FAILURE
    except Exception as e:
        if os.environ.get("VNETHASH_TRACEBACK"):
            raise
        print_error(
            f"unexpected {type(e).__name__}: {e}",
            kind="InternalError",
            hint="this is a defect in vnethash: please report it with what "
            "VNETHASH_TRACEBACK=1 makes the same command print",
            as_json=as_json,
        )
        return EXIT_FAILURE
    return code if isinstance(code, int) else 0


def _os_reason(error: OSError) -> str:
    reason = (error.strerror or str(error)).lower()
    return f"{error.filename}: {reason}" if error.filename else reason


def _flush() -> OSError | None:
    """What kept the output from going out, if anything did.

    Nothing is then left for the interpreter to try when it ends.
    """
    try:
        sys.stdout.flush()
    except OSError as e:
        nowhere = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
        return e
    return None


def run(argv: Sequence[str] | None = None) -> int:
    """Run the command line `argv` (default: of the process); returns the exit code.

    0 done, 1 it failed, 2 wrong use or a bad value, 130 interrupted.
    """
    args = list(sys.argv[1:] if argv is None else argv) or ["--help"]
    as_json = "--json" in itertools.takewhile("--".__ne__, args)
    code = _run(args, as_json)
    error = _flush()
    if error is None or code:
        return code
    if not isinstance(error, BrokenPipeError):  # whose reader has seen enough
        print_error(_os_reason(error), kind="OSError", hint=None, as_json=as_json)
    return EXIT_FAILURE


if __name__ == "__main__":
    sys.exit(run())
