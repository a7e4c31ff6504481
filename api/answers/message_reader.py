"""The text of one choice as parts: thoughts, text, tool calls. Knows characters, no tokens."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from api.answers.events import Part, Text, Thought
from api.answers.reasoning import ReasoningSplitter
from api.answers.stop import StopScanner
from api.tools.call_reader import CallReader


class PartReader(Protocol):
    """Tells the text of one choice apart into thoughts, text and tool calls."""

    @property
    def n_complete(self) -> int:
        """Tool calls that are complete."""
        ...

    @property
    def is_over(self) -> bool:
        """Whether the text says that nothing follows."""
        ...

    def push(self, text: str) -> list[Part]:
        """Returns the parts that no later text can change."""
        ...

    def flush(self) -> list[Part]:
        """Returns the parts that were held back; no more text comes."""
        ...


class TaggedReader:
    """Reads thoughts between tags at the beginning, then text with calls in it."""

    is_over = False

    def __init__(
        self, index: int, splitter: ReasoningSplitter | None, calls: CallReader | None
    ) -> None:
        self._index, self._splitter, self._calls = index, splitter, calls

    @property
    def n_complete(self) -> int:
        return 0 if self._calls is None else self._calls.n_complete

    def push(self, text: str) -> list[Part]:
        if self._splitter is None:
            return self._read(text)
        return self._split(self._splitter.push(text))

    def flush(self) -> list[Part]:
        parts = [] if self._splitter is None else self._split(self._splitter.flush())
        return parts if self._calls is None else parts + self._calls.flush()

    def _split(self, pieces: Iterable[tuple[bool, str]]) -> list[Part]:
        parts: list[Part] = []
        for is_thought, text in pieces:
            if is_thought:
                parts.append(Thought(self._index, text))
            else:
                parts += self._read(text)
        return parts

    def _read(self, text: str) -> list[Part]:
        return [Text(self._index, text)] if self._calls is None else self._calls.push(text)


class MessageReader:
    """The parts of one choice's text up to a stop string. `push` and `finish` give parts, which do
    not depend on how the text was cut into pieces.

    A stop string is looked for in the text only: thoughts and calls may hold it. After one there
    are no more parts.
    """

    def __init__(self, index: int, parts: PartReader, stops: StopScanner) -> None:
        self._index, self._parts, self._stops = index, parts, stops

    @property
    def has_calls(self) -> bool:
        """True once a tool call is complete."""
        return self._parts.n_complete > 0

    @property
    def is_over(self) -> bool:
        """True where no more parts come: after a stop string, or where the text says so."""
        return self._stops.found is not None or self._parts.is_over

    def push(self, text: str) -> list[Part]:
        """Returns the parts that no later text can change."""
        return self._stopped(self._parts.push(text))

    def finish(self) -> list[Part]:
        """Returns the parts that were held back; the text has ended."""
        parts = self._stopped(self._parts.flush())
        held = self._stops.flush()
        return [*parts, Text(self._index, held)] if held else parts

    def _stopped(self, parts: list[Part]) -> list[Part]:
        """Returns the parts before a stop string, without text that may become one."""
        certain: list[Part] = []
        for part in parts:
            if self._stops.found is not None:
                break
            text = self._stops.push(part.text) if isinstance(part, Text) else self._stops.flush()
            if text:
                certain.append(Text(self._index, text))
            if not isinstance(part, Text):
                certain.append(part)
        return certain
