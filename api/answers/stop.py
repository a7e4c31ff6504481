"""Where a text ends because of what it says: stop strings, and llama-server's rules of lines
(`n_indent`, `t_max_predict_ms`). Pure: characters and seconds in, characters out; no tokens.

Stop strings are an Aho-Corasick automaton: its depth after each character is the length of
the longest end of the text that may still become a stop string, which is exactly what must be
held back, and a match is seen on the very character that completes it. So the result cannot
depend on how the text was cut into pieces, and costs one dictionary look-up a character.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

BLANKS = " \t"


class StopTable:
    """The stop strings of a request, ready to be searched for; shared by its sequences."""

    def __init__(self, stops: Sequence[str]) -> None:
        if "" in stops:
            raise ValueError("an empty stop string would match everywhere")
        self.next: list[dict[str, int]] = [{}]  # next[state][character]
        self.fail: list[int] = [0]  # the state of the longest proper end of this state's text
        self.depth: list[int] = [0]  # characters of a stop string that this state has seen
        self.match: list[str] = [""]  # the longest stop string that ends in this state
        for stop in stops:
            self._add(stop)
        self._link()

    def _add(self, stop: str) -> None:
        state = 0
        for char in stop:
            if char not in self.next[state]:
                self.next[state][char] = len(self.next)
                self.next.append({})
                self.fail.append(0)
                self.depth.append(self.depth[state] + 1)
                self.match.append("")
            state = self.next[state][char]
        self.match[state] = stop

    def _link(self) -> None:
        """Breadth first, so that the shorter states a link leads to are complete."""
        states = deque(self.next[0].values())
        while states:
            state = states.popleft()
            for char, child in self.next[state].items():
                self.fail[child] = self.step(self.fail[state], char)
                states.append(child)
                if not self.match[child]:
                    self.match[child] = self.match[self.fail[child]]

    def step(self, state: int, char: str) -> int:
        """The state after one more character."""
        while state and char not in self.next[state]:
            state = self.fail[state]
        return self.next[state].get(char, 0)


class StopScanner:
    """Passes a text through up to the first stop string, which it leaves out.

    The first is the one that is complete first; of several that end on the same character, the
    longest. `found` is that string, or None as long as there was none.
    """

    def __init__(self, table: StopTable) -> None:
        self.found: str | None = None
        self._table = table
        self._state = 0
        self._held = ""  # the end of the text, which may be the beginning of a stop string
        self._n_cut = 0  # characters of the stop string, and of what came after it

    def push(self, text: str) -> str:
        """The part of all text so far, not yet returned, that is certain to stay."""
        if self.found is not None:
            return ""
        table, state = self._table, self._state
        for i, char in enumerate(text):
            state = table.step(state, char)
            if table.match[state]:
                self.found = table.match[state]
                whole, self._held = self._held + text[: i + 1], ""
                self._n_cut = len(self.found) + len(text) - (i + 1)
                return whole[: len(whole) - len(self.found)]
        self._state = state
        whole = self._held + text
        n_certain = len(whole) - table.depth[state]
        self._held = whole[n_certain:]
        return whole[:n_certain]

    def flush(self) -> str:
        """What was held back, once it is known that no more text comes."""
        held, self._held = self._held, ""
        self._state = 0
        return held

    @property
    def n_open(self) -> int:
        """Characters at the end of all text so far that are not certain to stay, or do not."""
        return len(self._held) + self._n_cut


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
