"""Reads an answer in Harmony (harmony.py) while it comes: thoughts, text and calls. Knows
characters, no tokens; the result does not depend on how the text was cut into pieces."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from enum import StrEnum

from api.answers.events import Part, Text, Thought, ToolArguments, ToolCall
from api.answers.reasoning import held_back
from api.tools.call_reader import ObjectEnd
from api.tools.dialects import ToolDialect
from api.tools.harmony import (
    ANALYSIS,
    ASSISTANT,
    CALL,
    CHANNEL,
    CONSTRAIN,
    END,
    FINAL,
    MESSAGE,
    RETURN,
    START,
    THOUGHTS,
    Header,
    Opening,
)

_HEADER_PARTS = (CHANNEL, MESSAGE, CONSTRAIN, START, "to=")
"""How the rest of a header may begin, after white space."""
_ENDS = (END, START, CALL, RETURN)


class _State(StrEnum):
    HEADER = "header"
    THOUGHT = "thought"
    TEXT = "text"
    ARGUMENTS = "arguments"
    REST = "rest"  # of a call's message, after its arguments
    BETWEEN = "between"  # two messages


class ChannelReader:
    """Reads the text of the choice `index`: text in, parts out. Calls of functions other than
    `names` are text. `shows_marks`: thoughts are text too, in the marks that they came with."""

    def __init__(
        self, dialect: ToolDialect, names: Sequence[str], index: int = 0,
        opening: Opening | None = None, *, shows_marks: bool = False,
    ) -> None:  # fmt: skip
        self.n_complete = 0
        self.is_over = False  # after a message that nothing follows
        self._dialect, self._names, self._index = dialect, frozenset(names), index
        self._shows_marks = shows_marks
        self._held, self._call, self._end = "", -1, ObjectEnd()
        self._is_final = False  # this message is the last one
        self._told: set[_State] = set()  # kinds of text of messages before, and of this one
        self._is_begun = False  # some of this message's text has been told
        opening = Opening() if opening is None else opening
        self._header, self._state = opening.header, _State.HEADER
        self._is_first = True  # no header has been read
        if opening.is_in_text:
            self._is_begun = True
            self._enter_text(Header.of(opening.header))

    def push(self, text: str) -> list[Part]:
        """Returns the parts that no later text can change."""
        self._held += text
        parts: list[Part] = []
        while not self.is_over and (found := list(self._step())):
            parts += found
        return [part for part in parts if not isinstance(part, Text | Thought) or part.text]

    def flush(self) -> list[Part]:
        """Returns the text that was held back; no more text comes. A header that broke off says
        nothing."""
        held, self._held = self._held, ""
        if self._state is _State.HEADER and not held.lstrip().startswith(_HEADER_PARTS):
            self._state = _State.TEXT if self._is_first else _State.BETWEEN
        if self.is_over or not held or self._state not in (_State.THOUGHT, _State.TEXT):
            return []
        return [self._say(held)]

    def _step(self) -> Iterator[Part]:
        """Yields the parts of one change of state; none if more text is needed."""
        if self._state is _State.HEADER:
            yield from self._read_header()
        elif self._state is _State.BETWEEN:
            yield from self._read_between()
        elif self._state is _State.ARGUMENTS:
            yield from self._read_arguments()
        else:
            yield from self._read_text()

    def _read_header(self) -> Iterator[Part]:
        begun = self._held.lstrip()
        if self._is_first and not any(
            begun.startswith(part) or part.startswith(begun) for part in _HEADER_PARTS
        ):
            self._state = _State.TEXT  # a model that does not know the format
            yield Text(self._index, "")
            return
        rest, mark, after = self._held.partition(MESSAGE)
        if mark:
            self._held = after
            self._is_begun = False
            header = Header.of(self._header + rest)
            self.is_over = header.role not in ("", ASSISTANT)  # the answer is; this is made up
            yield from self._enter(header)
            if self._state is _State.THOUGHT and self._shows_marks:
                yield Text(self._index, THOUGHTS)

    def _enter(self, header: Header) -> Iterator[Part]:
        """Begins a message's text, or a call."""
        self._enter_text(header)
        if header.function in self._names:
            self._state, self._end = _State.ARGUMENTS, ObjectEnd()
            self._call += 1
            yield ToolCall(self._index, self._call, self._dialect.new_id(), header.function)
        else:
            yield Text(self._index, "")

    def _enter_text(self, header: Header) -> None:
        self._is_first, self._is_final = False, header.channel == FINAL
        self._state = _State.THOUGHT if header.channel == ANALYSIS else _State.TEXT

    def _read_text(self) -> Iterator[Part]:
        places = [(at, mark) for mark in _ENDS if (at := self._held.find(mark)) >= 0]
        if not places:
            n_open = max(held_back(self._held, mark) for mark in _ENDS)
            certain = self._held[: len(self._held) - n_open]
            if certain:
                self._held = self._held[len(certain) :]
                yield self._say(certain)
            return
        at, mark = min(places)
        text, self._held = self._held[:at], self._held[at + len(mark) :]
        yield self._say(text)
        if self._state is _State.THOUGHT and self._shows_marks:
            yield Text(self._index, END)
        self.is_over = self._is_final or mark in (CALL, RETURN)
        self._header, self._state = "", _State.HEADER if mark == START else _State.BETWEEN

    def _read_between(self) -> Iterator[Part]:
        begun = self._held.lstrip()
        if begun.startswith(START):
            self._held, self._state = begun.removeprefix(START), _State.HEADER
        elif begun.startswith(CHANNEL):  # who speaks is left out
            self._held, self._state = begun, _State.HEADER
        elif not begun or START.startswith(begun) or CHANNEL.startswith(begun):
            return
        else:
            self._held, self._state, self._is_begun = begun, _State.TEXT, False
        yield Text(self._index, "")

    def _read_arguments(self) -> Iterator[Part]:
        if not self._held:
            return
        n = self._end.find(self._held)
        is_end = n is not None
        text, self._held = self._held[:n], "" if n is None else self._held[n:]
        if is_end:
            self._state = _State.REST
            self.n_complete += 1
        yield ToolArguments(self._index, self._call, text, is_end)

    def _say(self, text: str) -> Part:
        """Returns more of a message's text, after an empty line where one of its kind came
        before."""
        state = self._state
        if not text or state is _State.REST:
            return Text(self._index, "")
        if state in self._told and not self._is_begun and not self._shows_marks:
            text = "\n\n" + text
        self._is_begun = True
        self._told.add(state)
        is_thought = state is _State.THOUGHT and not self._shows_marks
        return Thought(self._index, text) if is_thought else Text(self._index, text)
