"""Text that comes piece by piece, broken between words at the edge of a terminal. No output."""

from __future__ import annotations

from collections.abc import Callable

from rich.cells import cell_len

TAB = 8
DROPPED = {code: None for code in (*range(32), *range(127, 160)) if chr(code) not in "\n\t"}
"""Control characters: a model must not move a terminal's cursor, or ring its bell."""


class WordWrap:
    """Breaks lines of at most `width()` columns. A word waits until it is complete; a word wider
    than a line is left to the terminal, and characters of two columns are words of their own."""

    def __init__(self, width: Callable[[], int]) -> None:
        self._width = width
        self._column = 0  # where the next character is written
        self._spaces = ""  # before the word
        self._word = ""

    def push(self, text: str) -> str:
        """Takes the next piece and returns what may be written."""
        out = []
        for char in text.translate(DROPPED):
            if char == "\n":
                out.append(self._finish_word() + "\n")
                self._column, self._spaces = 0, ""
            elif char in " \t":
                out.append(self._finish_word())
                self._spaces += " " if char == " " else " " * (TAB - self._at() % TAB)
            elif cell_len(char) > 1:
                out.append(self._finish_word())
                self._word = char
                out.append(self._finish_word())
            else:
                self._word += char
        return "".join(out)

    def flush(self) -> str:
        """Returns what is left, without the spaces at its end."""
        rest = self._finish_word()
        self._spaces = ""
        return rest

    def _at(self) -> int:
        return self._column + len(self._spaces)

    def _finish_word(self) -> str:
        word, self._word = self._word, ""
        if not word:
            return ""
        n_columns = cell_len(word)
        if self._column and self._at() + n_columns > self._width():
            self._column, before = 0, "\n"
        else:
            before = self._spaces
            self._column = self._at()
        self._spaces = ""
        self._column += n_columns
        return before + word
