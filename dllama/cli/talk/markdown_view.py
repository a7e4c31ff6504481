"""An answer in Markdown on a terminal, as it comes: whole blocks stay as they are printed, the last
one is drawn anew until it is whole."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.markdown import Markdown
from rich.segment import Segment
from rich.text import Text

from dllama.cli.talk.markdown_blocks import complete_length
from dllama.cli.terminal.word_wrap import DROPPED

REDRAW_S = 0.08
CODE_THEME = "ansi_dark"  # the terminal's own colours


@contextmanager
def undisturbed() -> Iterator[None]:
    """Has Ctrl-C wait: what was drawn in part could not be drawn over."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class MarkdownView:
    """Shows the pieces of one answer."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._text = ""  # of blocks that are not printed yet
        self._live: Live | None = None
        self._drawn_s = 0.0
        self._has_printed = False

    def push(self, piece: str) -> None:
        """Takes the next piece."""
        with undisturbed():
            self._push(piece)

    def end(self) -> None:
        """Prints what is left."""
        with undisturbed():
            self._stop()
            if self._text.strip():
                self._print(self._text)
            self._text = ""

    def _push(self, piece: str) -> None:
        self._text += piece.translate(DROPPED)
        done = complete_length(self._text)
        if done:
            self._stop()
            self._print(self._text[:done])
            self._text = self._text[done:]
        now = time.monotonic()
        if now - self._drawn_s >= REDRAW_S and self._text.strip():
            self._drawn_s = now
            self._draw()

    def _print(self, text: str) -> None:
        if self._has_printed:
            self._console.print()
        self._has_printed = True
        self._console.print(rendered(text))

    def _draw(self) -> None:
        if self._live is None:
            self._live = Live(
                console=self._console, auto_refresh=False, transient=True,
                vertical_overflow="visible",
            )  # fmt: skip
            self._live.start()
        before = [Text()] if self._has_printed else []
        self._live.update(Group(*before, self._tail(self._text)), refresh=True)

    def _tail(self, text: str) -> RenderableType:
        """Returns as much of the end of a block as a screen holds: what has scrolled away cannot be
        drawn anew."""
        height = max(4, self._console.height - 3)
        lines = self._console.render_lines(rendered(text), pad=False)
        if len(lines) <= height:
            return rendered(text)
        segments = [seg for line in lines[-height:] for seg in (*line, Segment.line())]
        return _Segments(segments)

    def _stop(self) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None


class _Segments:
    """Lines that are rendered already."""

    def __init__(self, segments: list[Segment]) -> None:
        self._segments = segments

    def __rich_console__(self, console: Console, options: object) -> list[Segment]:
        return self._segments


def rendered(text: str) -> Markdown:
    """Returns a Markdown text as the terminal shows it."""
    return Markdown(text, code_theme=CODE_THEME, inline_code_theme=CODE_THEME)
