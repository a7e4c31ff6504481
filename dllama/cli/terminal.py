"""The output for people: errors, notes and progress on stderr; decoration only on a terminal."""

from __future__ import annotations

import logging
import os
import sys

from rich.console import Console, RenderableType
from rich.markup import escape

PIPED_WIDTH = 10_000  # columns: nothing is cut that a program reads

stderr = Console(stderr=True, highlight=False)


def note(text: str) -> None:
    """Prints a line for the user, on stderr: broken between words on a terminal, and nowhere else,
    since it may hold a URL."""
    stderr.print(escape(text), soft_wrap=not stderr.is_terminal)


def complain(text: str) -> None:
    """Prints an error, which is one sentence, on stderr."""
    stderr.print(f"[bold red]error:[/] {escape(text)}", soft_wrap=True)


def count_of(n: int, noun: str) -> str:
    """Returns a number of things: "1 worker", "2 workers"."""
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"


def show(view: RenderableType) -> None:
    """Prints a table on stdout: as wide as the terminal, or as the table is where it is piped."""
    console = Console()
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = PIPED_WIDTH
    console.print(view)


def set_up_logging(level: str) -> None:
    """Sets up logging: one event a line, on stderr."""
    logging.basicConfig(
        level=level.upper(),
        stream=sys.stderr,
        format="%(asctime)s %(levelname)-7s %(name)s: %(message)s",
        datefmt="%H:%M:%S",
    )


class LoadingLine:
    """Progress of a load: a bar on a terminal, a line now and then elsewhere."""

    def __init__(self, label: str) -> None:
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

        self._label, self._is_live = label, stderr.is_terminal
        self._last_tenth = -1
        self._detail = ""
        if self._is_live:
            self._bar = Progress(
                TextColumn("{task.description}"), BarColumn(),
                TextColumn("{task.percentage:>3.0f}%"), TimeElapsedColumn(),
                TextColumn("{task.fields[detail]}"), console=stderr, transient=True,
            )  # fmt: skip
            self._task = self._bar.add_task(escape(label), total=1.0, detail="")
            self._bar.start()

    def update(self, share: float, detail: str) -> None:
        if self._is_live:
            self._bar.update(self._task, completed=share, detail=escape(detail))
            return
        tenth = int(share * 10)
        if tenth > self._last_tenth and (tenth % 5 == 0):
            self._last_tenth = tenth
            note(f"{self._label}: {share:.0%} {detail}")

    def close(self) -> None:
        if self._is_live:
            self._bar.stop()
