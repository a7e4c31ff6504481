"""The two ways in which llama-server ends an answer at a line: `n_indent` and `t_max_predict_ms`.
Pure: characters and seconds in, characters out."""

from __future__ import annotations

BLANKS = " \t"


class LineRules:
    """Passes a text through until a line after the first is indented less than `n_indent`, which
    is left out with all that follows, or a line ends later than `max_s` seconds after the first
    token. What it is not sure of yet, the indentation of a line, it holds back."""

    def __init__(self, n_indent: int, max_s: float | None) -> None:
        self._n_indent, self._max_s = n_indent, max_s
        self._held = ""  # the beginning of a line: nothing but blanks
        self._is_at_start = False  # of a line after the first
        self.has_ended = False

    def push(self, text: str, elapsed_s: float) -> str:
        """The part of the text that stays; "" for all that comes after the end."""
        if self.has_ended:
            return ""
        shown: list[str] = []
        for char in text:
            if not self._take(char, shown):
                break
            if char == "\n" and self._is_late(elapsed_s):
                self.has_ended = True
                break
        return "".join(shown)

    def _take(self, char: str, shown: list[str]) -> bool:
        """Adds a character to what is shown; False where the line may not stand."""
        if self._n_indent and self._is_at_start:
            if char in BLANKS:
                self._held += char
                return True
            if char != "\n" and len(self._held) < self._n_indent:
                self.has_ended = True
                self._held = ""
                return False
            shown.append(self._held)
            self._held = ""
            self._is_at_start = False
        shown.append(char)
        if char == "\n":
            self._is_at_start = True
        return True

    def _is_late(self, elapsed_s: float) -> bool:
        return self._max_s is not None and elapsed_s > self._max_s

    def flush(self) -> str:
        """What was held back, once no more text comes."""
        held, self._held = self._held, ""
        return held
