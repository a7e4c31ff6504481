"""The text of one choice as parts: thoughts, text, tool calls. Knows characters, no tokens."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from api.answers.citations import CitationReader
from api.answers.events import Citation, Part, Text, Thought
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


class TextOpening:
    """Leaves out the mark that a text may begin with."""

    def __init__(self, mark: str) -> None:
        self._mark, self._held, self._is_begun = mark, "", not mark

    def push(self, text: str) -> str:
        """Returns the text that no later text can change."""
        if self._is_begun:
            return text
        self._held += text
        begun = self._held.lstrip()
        if self._mark.startswith(begun) and begun != self._mark:
            return ""
        self._is_begun = True
        return begun.removeprefix(self._mark) if begun.startswith(self._mark) else self._held

    def flush(self) -> str:
        """Returns the text that was held back; no more text comes."""
        return "" if self._is_begun else self._held


class TaggedReader:
    """Reads thoughts between tags at the beginning, then text with calls in it. The text may begin
    with a mark of its own, `text_opening`. With `has_citations` those of the text are told apart;
    those of thoughts are left out."""

    is_over = False

    def __init__(
        self,
        index: int,
        splitter: ReasoningSplitter | None,
        calls: CallReader | None,
        *,
        text_opening: str = "",
        has_citations: bool = False,
    ) -> None:
        self._index, self._splitter, self._calls = index, splitter, calls
        self._opening = TextOpening(text_opening)
        self._citations = CitationReader(index) if has_citations else None
        self._cited_thoughts = CitationReader(index) if has_citations else None

    @property
    def n_complete(self) -> int:
        return 0 if self._calls is None else self._calls.n_complete

    def push(self, text: str) -> list[Part]:
        if self._splitter is None:
            return self._read(text)
        return self._split(self._splitter.push(text))

    def flush(self) -> list[Part]:
        parts = [] if self._splitter is None else self._split(self._splitter.flush())
        parts += self._end_thoughts() + self._called(self._opening.flush())
        parts += [] if self._calls is None else self._cited(self._calls.flush())
        return parts if self._citations is None else parts + self._citations.flush()

    def _split(self, pieces: Iterable[tuple[bool, str]]) -> list[Part]:
        parts: list[Part] = []
        for is_thought, text in pieces:
            parts += self._thought(text) if is_thought else self._end_thoughts() + self._read(text)
        return parts

    def _thought(self, text: str) -> list[Part]:
        if self._cited_thoughts is None:
            return [Thought(self._index, text)]
        return self._as_thoughts(self._cited_thoughts.push(text))

    def _end_thoughts(self) -> list[Part]:
        return (
            [] if self._cited_thoughts is None else self._as_thoughts(self._cited_thoughts.flush())
        )

    def _as_thoughts(self, parts: list[Part]) -> list[Part]:
        return [Thought(self._index, part.text) for part in parts if isinstance(part, Text)]

    def _read(self, text: str) -> list[Part]:
        return self._called(self._opening.push(text))

    def _called(self, text: str) -> list[Part]:
        if not text:
            return []
        return self._cited(
            [Text(self._index, text)] if self._calls is None else self._calls.push(text)
        )

    def _cited(self, parts: list[Part]) -> list[Part]:
        """Returns the parts with the citations in their texts told apart."""
        if self._citations is None:
            return parts
        told: list[Part] = []
        for part in parts:
            if isinstance(part, Text):
                told += self._citations.push(part.text)
            else:
                told += [*self._citations.flush(), part]
        return told


class MessageReader:
    """The parts of one choice's text up to a stop string. `push` and `finish` give parts, which do
    not depend on how the text was cut into pieces.

    A stop string is looked for in the text only: thoughts and calls may hold it. After one there
    are no more parts.
    """

    def __init__(self, index: int, parts: PartReader, stops: StopScanner) -> None:
        self._index, self._parts, self._stops = index, parts, stops
        self._cited: list[Citation] = []  # whose texts are not certain yet
        self._n_shown = 0  # characters

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
        if held:
            parts += self._shown(held)
        return parts

    def _stopped(self, parts: list[Part]) -> list[Part]:
        """Returns the parts before a stop string, without text that may become one."""
        certain: list[Part] = []
        for part in parts:
            if self._stops.found is not None:
                break
            if isinstance(part, Citation):  # between two pieces of one text
                self._cited.append(part)
                certain += self._shown("")
                continue
            text = self._stops.push(part.text) if isinstance(part, Text) else self._stops.flush()
            certain += self._shown(text)
            if not isinstance(part, Text):
                certain.append(part)
        return certain

    def _shown(self, text: str) -> list[Part]:
        """Returns a text that is certain, and the citations whose texts are whole with it."""
        self._n_shown += len(text)
        whole = [cited for cited in self._cited if cited.end <= self._n_shown]
        self._cited = self._cited[len(whole) :]
        return [*([Text(self._index, text)] if text else []), *whole]
