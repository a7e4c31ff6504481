"""Citations in a grounded answer of Cohere's models: a span of the text with the results of tools,
or the documents, that support it, `<co>span</co: 0:[1,2],1:[0]>`. Knows characters, no tokens; the
result does not depend on how the text was cut into pieces.

Source: the chat templates of Command R7B and Command A, which tell the models so."""

from __future__ import annotations

import re
from collections.abc import Iterator

from api.answers.events import Citation, Part, Source, Text
from api.answers.reasoning import held_back

OPENING, CLOSING = "<co>", "</co"
MAX_CLOSING_CHARS = 512  # of sources; more is text

_CLOSING = re.compile(r"</co\s*:?\s*([0-9:,\[\]\s]*)>")
_MAY_CLOSE = re.compile(r"</co[\s:]*[0-9:,\[\]\s]*")
_SOURCE = re.compile(r"([0-9]{1,9})\s*:\s*\[([0-9,\s]*)\]")
_NUMBER = re.compile(r"[0-9]{1,9}")


class CitationReader:
    """Takes the marks of citations out of the text of the choice `index`: text in, parts out."""

    def __init__(self, index: int) -> None:
        self._index = index
        self._held = ""
        self._n_told = 0  # characters of the text without marks
        self._span: list[str] | None = None  # what was told since a span began
        self._begin = 0

    def push(self, text: str) -> list[Part]:
        """Returns the parts that no later text can change."""
        self._held += text
        return list(self._read())

    def flush(self) -> list[Part]:
        """Returns the text that was held back; no more text comes."""
        held, self._held = self._held, ""
        return list(self._say(held))

    def _read(self) -> Iterator[Part]:
        while self._held:
            places = [at for mark in (OPENING, CLOSING) if (at := self._held.find(mark)) >= 0]
            if not places:
                n_open = max(held_back(self._held, mark) for mark in (OPENING, CLOSING))
                certain = self._held[: len(self._held) - n_open]
                self._held = self._held[len(certain) :]
                yield from self._say(certain)
                return
            at = min(places)
            before, self._held = self._held[:at], self._held[at:]
            yield from self._say(before)
            if self._held.startswith(OPENING):
                self._held = self._held[len(OPENING) :]
                self._begin, self._span = self._n_told, []
                continue
            closing = _CLOSING.match(self._held)
            if closing is not None:
                self._held = self._held[closing.end() :]
                yield from self._close(closing[1])
            elif _MAY_CLOSE.fullmatch(self._held) and len(self._held) < MAX_CLOSING_CHARS:
                return
            else:
                said, self._held = self._held[: len(CLOSING)], self._held[len(CLOSING) :]
                yield from self._say(said)

    def _say(self, text: str) -> Iterator[Part]:
        if not text:
            return
        self._n_told += len(text)
        if self._span is not None:
            self._span.append(text)
        yield Text(self._index, text)

    def _close(self, sources: str) -> Iterator[Part]:
        """Ends a span; one without a beginning or without sources is told by nothing."""
        span, self._span = self._span, None
        found = tuple(
            Source(int(call), tuple(int(n) for n in _NUMBER.findall(results)))
            for call, results in _SOURCE.findall(sources)
        )
        if span and found:
            yield Citation(self._index, self._begin, self._n_told, "".join(span), found)


def without_citations(text: str) -> str:
    """Returns a text without the marks of its citations."""
    return _CLOSING.sub("", text.replace(OPENING, ""))
