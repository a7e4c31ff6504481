"""Reads calls that are written as Python's (pythonic.py). An argument is told when it is
complete."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence

from api.answers.events import Part, ToolArguments, ToolCall
from api.tools.call_reader import CallReader, State
from api.tools.dialects import ToolDialect
from api.tools.pythonic import ValueEnd, json_of

_KEY = re.compile(r"[\s,]*([^\s=,()][^=,()]*?)\s*=")


class PythonicReader(CallReader):
    """Reads the text of one choice: text in, parts out."""

    def __init__(self, dialect: ToolDialect, names: Sequence[str], index: int = 0) -> None:
        super().__init__(dialect, names, index)
        self._key: str | None = None  # of the argument whose value is read; None before a name
        self._n_arguments = 0
        self._value_end = ValueEnd()
        self._n_searched = 0  # characters of the value in which its end was looked for

    def _open(self, name: str, text: str) -> ToolCall:
        self._key, self._n_arguments = None, 0
        return super()._open(name, text)

    def _arguments(self) -> Iterator[Part]:
        if self._key is None:
            yield from self._read_key()
            return
        end = self._value_end.find(self._held, self._n_searched)
        self._n_searched = len(self._held)
        if end is None:
            return
        value, self._held = json_of(self._held[:end]), self._held[end:]
        key, self._key = json.dumps(self._key, ensure_ascii=False), None
        opening = ", " if self._n_arguments else "{"
        self._n_arguments += 1
        yield ToolArguments(self._index, self._call, f"{opening}{key}: {value}", False)

    def _read_key(self) -> Iterator[Part]:
        """Reads the name of the next argument, or the end of the call."""
        begun = self._held.lstrip(" \t\r\n,")
        if begun.startswith(")"):
            self._held, self._state = begun[1:], State.MARKED
            self.n_complete += 1
            text = "}" if self._n_arguments else "{}"
            yield ToolArguments(self._index, self._call, text, True)
            return
        key = _KEY.match(self._held)
        if key is not None:
            self._held, self._key = self._held[key.end() :], key[1]
            self._value_end, self._n_searched = ValueEnd(), 0
            yield from self._arguments()
