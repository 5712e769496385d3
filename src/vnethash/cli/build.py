# SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
"""``vnethash build``: compile a hash program."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from vnethash.cli.options import JsonOption
from vnethash.cli.output import console, emit_json
from vnethash.cli.verifier_log import VerifierLogOption, verifier_log
from vnethash.errors import CompileError, ConfigError
from vnethash.writing import write


def build_program_command(
    source: Annotated[
        Path, typer.Argument(metavar="PROG.c", help="C source; see docs/programs.md.")
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="PROG.o",
            help="Where the object goes (default: PROG.o in the working directory).",
        ),
    ] = None,
    cc: Annotated[
        str | None,
        typer.Option(
            "--cc",
            metavar="COMMAND",
            help='Compiler for BPF, such as "clang -target bpf" (default: BPF_CC, else ziglang, '
            "else a clang that has BPF).",
        ),
    ] = None,
    engine: Annotated[
        str,
        typer.Option(
            "--engine",
            "-e",
            metavar="NAME",
            help="What is to run it: program, or on a kernel of the lab tun-kfunc, "
            "tun-progtype, tun-cb.",
        ),
    ] = "program",
    define: Annotated[
        list[str] | None, typer.Option("--define", "-D", metavar="NAME[=V]", help="Define a macro.")
    ] = None,
    include: Annotated[
        list[str] | None,
        typer.Option("--include", "-I", metavar="DIR", help="Look for headers there too."),
    ] = None,
    load: Annotated[
        bool, typer.Option("--load", help="Have the running kernel's verifier judge it as well.")
    ] = False,
    log: VerifierLogOption = None,
    json: JsonOption = False,
) -> None:
    """Compile a hash program against the headers that come with vnethash.

    The object is written only if it is one that attach --program takes; with
    --load, only if the running kernel takes it.
    """
    from vnethash.programs import ENGINES, compile_program, defines_for, open_program

    if engine not in ENGINES:
        raise ConfigError("engine", f"must be one of {', '.join(ENGINES)}, not {engine!r}")
    output = output or Path(source.name).with_suffix(".o")
    try:
        defines = (*defines_for(engine), *(define or ()))
        compiled = compile_program(source, compiler=cc, defines=defines, includes=include or ())
    except CompileError as error:
        if not json:
            sys.stderr.write(error.output)
        raise
    if not json:
        sys.stderr.write(compiled.warnings)
    verified = {}
    name = output.name.partition(".")[0]
    with open_program(compiled.image, name=name, engine=engine) as program:
        if load:
            with verifier_log(log):
                program.load()
            verified = {name: program.program(name).verified for name in program.programs()}
    write(output, compiled.image)
    if json:
        emit_json(
            {
                "object": str(output),
                "source": str(source),
                "compiler": compiled.compiler,
                "warnings": compiled.warnings,
                "bytes": len(compiled.image),
                "verified": verified or None,
            }
        )
        return
    console().print(f"{output}: compiled by {compiled.compiler}", soft_wrap=True)
    for name, instructions in verified.items():
        console().print(f"{name}: the verifier went through {instructions:,} instructions")
