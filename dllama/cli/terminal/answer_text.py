"""The text of an answer as a terminal shows it."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Protocol

from api.answers.events import Part, Text, Thought
from api.tools.channel_reader import ChannelReader
from api.tools.dialects import HARMONY, dialect_of
from api.tools.harmony import MARKS, opening_of
from dllama.tokenizer import Tokenizer


class AnswerText(Protocol):
    """Turns the tokens of an answer into what is written to stdout."""

    def push(self, ids: Sequence[int], /) -> str: ...

    def flush(self) -> str: ...


class ChannelText:
    """An answer in Harmony: its text for stdout, its thoughts to stderr."""

    def __init__(self, tokenizer: Tokenizer, prompt: str) -> None:
        marks = [tokenizer.encode(mark, parse_special=True) for mark in MARKS]
        self._decoder = tokenizer.decoder(kept=[ids[0] for ids in marks if len(ids) == 1])
        self._reader = ChannelReader(HARMONY, (), opening=opening_of(prompt))
        self._has_thought = False  # since the last text

    def push(self, ids: Sequence[int], /) -> str:
        return self._told(self._reader.push(self._decoder.push(ids)))

    def flush(self) -> str:
        parts = self._reader.push(self._decoder.flush())
        return self._told(parts + self._reader.flush())

    def _told(self, parts: list[Part]) -> str:
        text = ""
        for part in parts:
            if isinstance(part, Thought):
                sys.stderr.write(part.text)
                self._has_thought = True
            elif isinstance(part, Text):
                if self._has_thought:  # the terminal may show both
                    sys.stderr.write("\n")
                    self._has_thought = False
                text += part.text
        return text


def answer_text(tokenizer: Tokenizer, sources: tuple[str, ...], prompt: str) -> AnswerText:
    """Returns the text of the answer to a prompt that a chat template of these sources made."""
    if dialect_of(sources).has_channels:
        return ChannelText(tokenizer, prompt)
    return tokenizer.decoder()
