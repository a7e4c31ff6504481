"""Reads tool calls out of an answer while it comes. Knows characters and a dialect, no tokens; the
result does not depend on how the text was cut into pieces."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from enum import StrEnum

from api.answers.events import Part, Text, ToolArguments, ToolCall
from api.answers.reasoning import held_back
from api.tools.dialects import ToolDialect


class State(StrEnum):
    BEGIN = "begin"  # a bare call may begin here
    TEXT = "text"
    MARKED = "marked"  # after the mark, or after a call: another one may begin
    ARGUMENTS = "arguments"


class CallReader:
    """Reads the text of the choice `index`: text in, parts out. An answer to a grammar writes heads
    letter by letter as the dialect does, so that they are found by comparing; text that only looks
    like a call stays text."""

    def __init__(self, dialect: ToolDialect, names: Sequence[str], index: int = 0) -> None:
        self.n_complete = 0
        self._index = index
        self._dialect = dialect
        self._heads = (
            {dialect.bare_opening + dialect.head(name): name for name in names}
            if dialect.is_bare
            else {}
        )
        self._patterns = {name: dialect.head_pattern(name) for name in names}
        self._state = State.BEGIN if dialect.is_bare else State.TEXT
        self._held = ""
        self._call = -1
        self._end = ObjectEnd()

    def push(self, text: str) -> list[Part]:
        """Returns the parts that no later text can change."""
        self._held += text
        parts: list[Part] = []
        while found := list(self._step()):
            parts += found
        return [part for part in parts if not isinstance(part, Text) or part.text]

    def flush(self) -> list[Part]:
        """Returns the text that was held back; no more text comes."""
        held, self._held = self._held, ""
        if self._state is State.MARKED and self._call < 0:
            held = self._dialect.mark + held
        elif self._state in (State.MARKED, State.ARGUMENTS):
            return []
        return [Text(self._index, held)] if held else []

    def _step(self) -> Iterator[Part]:
        """Yields the parts of one change of state; none if more text is needed."""
        if self._state is State.BEGIN:
            yield from self._begin()
        elif self._state is State.TEXT:
            yield from self._text()
        elif self._state is State.MARKED:
            yield from self._marked()
        else:
            yield from self._arguments()

    def _begin(self) -> Iterator[Part]:
        begun = self._held.lstrip()
        name = next((self._heads[head] for head in self._heads if begun.startswith(head)), None)
        if name is not None:
            yield self._open(name, begun.removeprefix(self._dialect.bare_opening))
        elif begun and not any(head.startswith(begun) for head in self._heads):
            self._state = State.TEXT
            yield Text(self._index, "")

    def _text(self) -> Iterator[Part]:
        mark = self._dialect.mark
        before, found, rest = self._held.partition(mark)
        if found:
            self._held, self._state = rest, State.MARKED
            yield Text(self._index, before.rstrip())
            return
        certain = self._held[: len(self._held) - held_back(self._held, mark)].rstrip()
        if certain:
            self._held = self._held[len(certain) :]
            yield Text(self._index, certain)

    def _marked(self) -> Iterator[Part]:
        found = ((name, head.search(self._held)) for name, head in self._patterns.items())
        places = [(head.start(), name) for name, head in found if head is not None]
        if places:
            at, name = min(places)
            yield self._open(name, self._held[at:])

    def _open(self, name: str, text: str) -> ToolCall:
        head = self._patterns[name].match(text)
        assert head is not None, "a call is opened where its head was found"
        self._held, self._state = text[head.end() :], State.ARGUMENTS
        self._call += 1
        self._end = ObjectEnd()
        call_id = head.groupdict().get("id") or self._dialect.new_id()
        return ToolCall(self._index, self._call, call_id, name)

    def _arguments(self) -> Iterator[Part]:
        if not self._held:
            return
        n = self._end.find(self._held)
        is_end = n is not None
        text, self._held = self._held[:n], "" if n is None else self._held[n:]
        if is_end:
            self._state = State.MARKED
            self.n_complete += 1
        yield ToolArguments(self._index, self._call, text, is_end)


class ObjectEnd:
    """Finds where a JSON object ends in text that comes in pieces."""

    def __init__(self) -> None:
        self._depth = 0
        self._in_string = False
        self._escaped = False

    def find(self, text: str) -> int | None:
        """Returns the length of the part of `text` up to and with the object's end; None for
        all."""
        for i, char in enumerate(text):
            if self._escaped:
                self._escaped = False
            elif self._in_string:
                self._escaped = char == "\\"
                self._in_string = char != '"'
            elif char == '"':
                self._in_string = True
            elif char in "{[":
                self._depth += 1
            elif char in "}]":
                self._depth -= 1
                if self._depth == 0:
                    return i + 1
        return None
