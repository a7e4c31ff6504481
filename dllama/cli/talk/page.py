"""Where an answer is printed: on a terminal as Markdown, with its thoughts dimmed before it; else
the answer alone, as it is."""

from __future__ import annotations

import shutil
import sys

from rich.console import Console
from rich.text import Text

from dllama.cli.chat_client import Piece
from dllama.cli.talk.markdown_view import MarkdownView
from dllama.cli.terminal.output import note
from dllama.cli.terminal.word_wrap import WordWrap


class Page:
    """Prints one answer. `is_plain` shows its Markdown on a terminal as it was written."""

    def __init__(self, is_live: bool, is_plain: bool = False) -> None:
        self._is_live = is_live
        self._console = Console(highlight=False, soft_wrap=True)
        self._view = MarkdownView(Console(highlight=False)) if is_live and not is_plain else None
        self._wrap = WordWrap(lambda: shutil.get_terminal_size().columns)
        self._is_thinking = False

    def add(self, piece: Piece) -> None:
        if piece.is_thought and not self._is_thinking:
            self._begin_thoughts()
        elif self._is_thinking and not piece.is_thought:
            self._end_thoughts()
        if not self._is_live:
            if not piece.is_thought:
                sys.stdout.write(piece.text)
                sys.stdout.flush()
        elif self._view is not None and not piece.is_thought:
            self._view.push(piece.text)
        else:
            self._print(self._wrap.push(piece.text), piece.is_thought)

    def end(self, remark: str = "") -> None:
        """Ends the line; a remark follows on one of its own."""
        if not self._is_live:
            sys.stdout.write("\n")
            sys.stdout.flush()
            return
        if self._view is not None:
            self._view.end()
        rest = self._wrap.flush()
        if self._view is None or self._is_thinking:
            self._print(rest + "\n", self._is_thinking)
        if remark:
            self._print(remark + "\n", is_dim=True)

    def _begin_thoughts(self) -> None:
        self._is_thinking = True
        if self._is_live:
            self._print("thinking…\n", is_dim=True)
        else:
            note("thinking…")

    def _end_thoughts(self) -> None:
        self._is_thinking = False
        if self._is_live:
            self._print(self._wrap.flush() + "\n\n", is_dim=True)
            self._wrap = WordWrap(lambda: shutil.get_terminal_size().columns)

    def _print(self, text: str, is_dim: bool) -> None:
        if text:
            self._console.print(Text(text, "dim" if is_dim else ""), end="")
