"""How downloads are shown: a bar for each file on a terminal, a line now and then elsewhere."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol

from dllama.cli.terminal.output import complain, count_of, is_terminal, note, stderr
from dllama.cli.terminal.sizes import size_of
from dllama.hub.task import Event, EventType, Json

_LINE_EVERY = 0.1  # of a model, without a terminal
_NAME_CHARS = 44
MAX_BARS = 12  # of a model with more files only the sum is shown


class DownloadView(Protocol):
    """Shows what happens to downloads."""

    def show(self, event: Event) -> None: ...

    def refuse(self, reason: str) -> None:
        """Shows why a download does not begin."""
        ...


@contextmanager
def download_view() -> Iterator[DownloadView]:
    """Yields the view for stderr as it is."""
    if not is_terminal():
        yield Lines()
        return
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    columns = (
        TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:>3.0f}%"),
        DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )  # fmt: skip
    with Progress(*columns, console=stderr()) as progress:
        yield Bars(progress)


def ending(event: Event) -> str:
    """Returns the sentence about the end of a download."""
    if event.type is EventType.SUCCESS:
        return f"{event.task_id} is here ({size_of(event.task['bytes'])})"
    if event.type is EventType.STOPPED:
        return f"{event.task_id} was stopped; dllama pull goes on with it"
    return f"{event.task_id}: {event.task['error']}"


class Lines:
    """Plain lines: the beginning, every tenth, what is waited for, and the end."""

    def __init__(self) -> None:
        self._told: dict[str, float] = {}
        self._notes: set[str] = set()

    def show(self, event: Event) -> None:
        task = event.task
        if event.type is EventType.STARTED:
            n_files = count_of(len(_items(task)), "file")
            note(f"pulling {event.task_id}: {n_files}, {size_of(task['bytes'])}")
        elif event.type is EventType.UPDATED:
            self._update(event)
        elif event.type is EventType.ERROR:
            complain(ending(event))
        else:
            note(ending(event))

    def refuse(self, reason: str) -> None:
        complain(reason)

    def _update(self, event: Event) -> None:
        for text in (item["note"] for item in _items(event.task)):
            if isinstance(text, str) and text not in self._notes:
                self._notes.add(text)
                note(text)
        done, total = event.task["downloadedBytes"], event.task["bytes"]
        assert isinstance(done, int) and isinstance(total, int)
        share = done / max(total, 1)
        if share >= self._told.get(event.task_id, 0.0) + _LINE_EVERY:
            self._told[event.task_id] = share
            speed = size_of(event.task["bytesPerSecond"])
            note(f"{event.task_id}: {share:.0%} of {size_of(total)}, {speed}/s")


class Bars:
    """Bars on a terminal, one for each file, or one for a model of many."""

    def __init__(self, progress: Any) -> None:
        self._progress = progress
        self._bars: dict[tuple[str, str], Any] = {}

    def show(self, event: Event) -> None:
        items = _items(event.task)
        rows = items if len(items) <= MAX_BARS else [event.task]
        for row in rows:
            self._show_row(event.task_id, row)
        if event.is_last:
            if event.type is EventType.ERROR:
                self.refuse(ending(event))
            else:
                self._progress.console.print(ending(event), markup=False)

    def refuse(self, reason: str) -> None:
        from rich.text import Text

        self._progress.console.print(Text("error: ", "bold red").append(reason, "none"))

    def _show_row(self, task_id: str, row: Mapping[str, Any]) -> None:
        key = (task_id, str(row["id"]))
        if key not in self._bars:
            from rich.markup import escape

            name = str(row["id"]).rpartition("/")[2]
            shown = name if len(name) <= _NAME_CHARS else "…" + name[1 - _NAME_CHARS :]
            self._bars[key] = self._progress.add_task(
                escape(shown), total=row["bytes"], note="", start=True
            )
        self._progress.update(
            self._bars[key], completed=row["downloadedBytes"], note=row.get("note") or ""
        )


def _items(task: Json) -> list[Json]:
    items = task["items"]
    assert isinstance(items, list)
    return items
