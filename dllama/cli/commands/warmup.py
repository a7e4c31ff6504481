"""dllama warmup: compiles every kernel for this machine now, so that no start has to."""

from __future__ import annotations

import argparse
import time

from dllama.cli.command_table import Commands
from dllama.cli.terminal.output import is_terminal, note, stderr


def add_parser(commands: Commands, summary: str) -> None:
    parser = commands.add_parser(
        "warmup", help=summary,
        description="Compile the kernels of every weight type for this processor. They are kept "
        "on disk and shared by all dllama processes of this user; a first start compiles what it "
        "needs by itself, this does it ahead of time.",
    )  # fmt: skip
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
    )

    from kernels.cache import folder
    from kernels.cpu import cpu_name, isa
    from kernels.kernel import on_compile
    from kernels.team import Team
    from kernels.warm_up import pieces

    names: list[str] = []
    started_s = time.monotonic()
    columns = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
    )  # fmt: skip
    todo = list(pieces())
    with (
        Team(1) as team,
        on_compile(names.append),
        Progress(*columns, console=stderr(), disable=not is_terminal()) as progress,
    ):
        task = progress.add_task("compiling", total=len(todo))
        for name, compile_piece in todo:
            progress.update(task, description=name)
            compile_piece(team)
            progress.advance(task)
    seconds = time.monotonic() - started_s
    where = folder()
    note(
        f"{len(names)} kernels compiled for {cpu_name()} ({isa()}) in {seconds:.0f} s, "
        + (f"kept in {where}" if where else "kept nowhere")
        if names
        else f"everything was compiled already, in {where}"
    )
    return 0
