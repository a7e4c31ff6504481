"""How downloads are shown: bars on a terminal, plain lines elsewhere."""

from __future__ import annotations

from io import StringIO

import pytest
from rich.console import Console
from rich.progress import Progress, TextColumn

from dllama.cli.terminal.download_view import MAX_BARS, Bars, Lines
from dllama.cli.terminal.sizes import size_of
from dllama.hub.repository import RemoteFile, Selection
from dllama.hub.task import DownloadTask, Event, new_task

NAME = "hf.co/u/r:Q4_0"


def some_task(n_files: int) -> DownloadTask:
    files = tuple(RemoteFile(f"{i}.gguf", 1000, "https://h/x") for i in range(n_files))
    return new_task(Selection(NAME, ("hf.co",), files, "0.gguf"), "/models")


def whole_life(task: DownloadTask) -> list[Event]:
    """The events of a download with a pause, and then an error."""
    told = [task.start(0.0), task.progress(0, 500, 1.0), task.waits(0, "the network is away", 2.0),
            task.progress(0, 1000, 3.0), task.fail("the hub is closed")]  # fmt: skip
    return [event for event in told if event is not None]


def test_lines_tell_the_beginning_what_is_waited_for_and_the_end(
    capsys: pytest.CaptureFixture[str],
) -> None:
    lines = Lines()
    for event in whole_life(some_task(2)):
        lines.show(event)
    lines.refuse("no such name")
    said = capsys.readouterr()
    assert said.out == ""
    rows = said.err.splitlines()
    assert rows[0] == f"pulling {NAME}: 2 files, 2.0 kB"
    assert rows[1] == f"{NAME}: 25% of 2.0 kB, 500 B/s"
    assert rows[2] == "the network is away"
    assert rows[3].startswith(f"{NAME}: 50% of 2.0 kB")
    assert rows[4:] == [f"error: {NAME}: the hub is closed", "error: no such name"]


def test_bars_are_one_a_file_or_one_for_many() -> None:
    for n_files, n_bars in ((2, 2), (MAX_BARS + 1, 1)):
        out = StringIO()
        console = Console(file=out, force_terminal=True, width=200)
        with Progress(TextColumn("{task.description} {task.fields[note]}"), console=console) as bar:
            bars = Bars(bar)
            for event in whole_life(some_task(n_files)):
                bars.show(event)
            bars.refuse("no [such] name")
            assert len(bar.tasks) == n_bars
            assert bar.tasks[0].total == (1000 if n_bars == 2 else 1000 * n_files)
            assert bar.tasks[0].completed == 1000
        assert "the hub is closed" in out.getvalue() and "no [such] name" in out.getvalue()


def test_sizes_are_in_units_of_a_thousand() -> None:
    assert [size_of(n) for n in (0, 999, 1000, 4_700_000_000, 397_000_000, None)] == [
        "0 B", "999 B", "1.0 kB", "4.7 GB", "397 MB", "0 B",
    ]  # fmt: skip
