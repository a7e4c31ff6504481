"""Reads calls whose arguments stand between tags (tagged.py). An argument is told when it is
complete."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping

from api.answers.events import Part, ToolArguments, ToolCall
from api.tools.call_reader import CallReader, State
from api.tools.dialects import ToolDialect
from api.tools.tagged import (
    CALL,
    CALL_END,
    KEY,
    KEY_END,
    VALUE,
    VALUE_END,
    json_value,
    properties_of,
)

_HEAD = re.compile(rf"\s*(?:{CALL})?\s*([A-Za-z0-9_.:/-]{{1,128}})\s*(?={KEY}|{CALL_END})")
_ARGUMENT = re.compile(rf"{KEY}(.*?){KEY_END}\s*{VALUE}(.*?){VALUE_END}", re.DOTALL)


class TaggedCallReader(CallReader):
    """Reads the text of the choice `index`: text in, parts out. `schemas` are those of the
    functions' arguments, by their names."""

    def __init__(
        self, dialect: ToolDialect, schemas: Mapping[str, Mapping[str, object]], index: int = 0
    ) -> None:
        super().__init__(dialect, list(schemas), index)
        self._schemas = schemas
        self._name = ""
        self._n_arguments = 0

    def _marked(self) -> Iterator[Part]:
        head = _HEAD.match(self._held)
        if head is not None and head[1] in self._schemas:
            self._held, self._state = self._held[head.end() :], State.ARGUMENTS
            self._name, self._n_arguments = head[1], 0
            self._call += 1
            yield ToolCall(self._index, self._call, self._dialect.new_id(), head[1])

    def _arguments(self) -> Iterator[Part]:
        held = self._held.lstrip()
        opening = ", " if self._n_arguments else "{"
        if held.startswith(CALL_END):
            self._held, self._state = held[len(CALL_END) :], State.MARKED
            self.n_complete += 1
            text = "}" if self._n_arguments else "{}"
            yield ToolArguments(self._index, self._call, text, True)
            return
        argument = _ARGUMENT.match(held)
        if argument is not None:
            self._held = held[argument.end() :]
            self._n_arguments += 1
            key, value = argument[1].strip(), argument[2]
            schema = (properties_of(self._schemas[self._name]) or {}).get(key)
            text = f"{opening}{json.dumps(key, ensure_ascii=False)}: {json_value(value, schema)}"
            yield ToolArguments(self._index, self._call, text, False)
