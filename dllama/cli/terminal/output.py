"""The output for people: errors, notes and progress on stderr; decoration only on a terminal.

rich is imported where something is decorated: piped commands need not wait for it.
"""

from __future__ import annotations

import functools
import logging
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from dllama.logs.settings import is_json, told_as_json

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

PIPED_WIDTH = 10_000  # columns: nothing is cut that a program reads
PATIENCE_S = 0.3  # a load that is over sooner needs no bar


@functools.cache
def stderr() -> Console:
    """The console of stderr."""
    from rich.console import Console

    return Console(stderr=True, highlight=False)


def is_terminal() -> bool:
    """True where stderr is a terminal, for people."""
    return sys.stderr.isatty() and not is_json()


def note(text: str) -> None:
    """Prints a line for the user, on stderr: broken between words on a terminal, and nowhere else,
    since it may hold a URL; in the log where that is JSON."""
    if told_as_json(logging.INFO, text):
        return
    if is_terminal():
        stderr().print(text, markup=False)
    else:
        print(text, file=sys.stderr, flush=True)


def complain(text: str) -> None:
    """Prints an error, which is one sentence, on stderr; in the log where that is JSON."""
    if told_as_json(logging.ERROR, text):
        return
    if is_terminal():
        stderr().print("[bold red]error:[/]", end=" ")
    else:
        print("error:", end=" ", file=sys.stderr)
    print(text, file=sys.stderr, flush=True)


def count_of(n: int, noun: str) -> str:
    """Returns a number of things: "1 worker", "2 workers"."""
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"


def show(view: RenderableType) -> None:
    """Prints a table on stdout: as wide as the terminal, or as the table is where it is piped."""
    from rich.console import Console

    console = Console()
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = PIPED_WIDTH
    console.print(view)


class LoadingLine:
    """Progress of a load that takes a while: a bar on a terminal, a line now and then elsewhere."""

    def __init__(self, label: str) -> None:
        self._label, self._is_live = label, is_terminal()
        self._last_tenth = -1
        self._since_s = time.monotonic()
        self._bar: Any = None

    def update(self, share: float, detail: str) -> None:
        if time.monotonic() - self._since_s < PATIENCE_S:
            return
        if self._is_live:
            self._update_bar(share, detail)
            return
        tenth = int(share * 10)
        if tenth > self._last_tenth and (tenth % 5 == 0):
            self._last_tenth = tenth
            note(f"{self._label}: {share:.0%} {detail}")

    def _update_bar(self, share: float, detail: str) -> None:
        from rich.markup import escape
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

        if self._bar is None:
            self._bar = Progress(
                TextColumn("{task.description}"), BarColumn(),
                TextColumn("{task.percentage:>3.0f}%"), TimeElapsedColumn(),
                TextColumn("{task.fields[detail]}"), console=stderr(), transient=True,
            )  # fmt: skip
            self._task = self._bar.add_task(escape(self._label), total=1.0, detail="")
            self._bar.start()
        self._bar.update(self._task, completed=share, detail=escape(detail))

    def close(self) -> None:
        if self._bar is not None:
            self._bar.stop()


@contextmanager
def loading(label: str) -> Iterator[Callable[[float, str], None]]:
    """Yields a LoadingLine's `update`, while something loads."""
    line = LoadingLine(label)
    try:
        yield line.update
    finally:
        line.close()
