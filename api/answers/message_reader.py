"""An answer's text as OpenAI's deltas: thoughts, content and tool calls told apart."""

from __future__ import annotations

from collections.abc import Iterable

from api.answers.reasoning import ReasoningSplitter
from api.tools.call_reader import ArgumentsPart, CallPart, CallReader, Part, TextPart
from api.tools.dialects import ToolDialect
from dllama.requests import FinishReason

Json = dict[str, object]


class MessageReader:
    """Reads one sequence. `push` and `finish` give deltas; `message` is what they come to."""

    def __init__(
        self,
        splitter: ReasoningSplitter | None,
        calls: CallReader | None,
        dialect: ToolDialect,
    ) -> None:
        self._splitter = splitter
        self._calls = calls
        self._dialect = dialect
        self._thoughts: list[str] = []
        self._content: list[str] = []
        self._made: list[tuple[str, str, list[str]]] = []  # id, name and arguments of each call

    def push(self, text: str) -> list[Json]:
        """The deltas that more text brings."""
        if self._splitter is None:
            return self._read(text)
        return self._split(self._splitter.push(text))

    def finish(self) -> list[Json]:
        """The deltas of what was held back; the text has ended."""
        deltas = [] if self._splitter is None else self._split(self._splitter.flush())
        if self._calls is not None:
            deltas += [self._delta(part) for part in self._calls.flush()]
        return deltas

    def reason(self, finish: FinishReason) -> str:
        """OpenAI's finish reason."""
        called = self._calls is not None and self._calls.n_complete > 0
        return "tool_calls" if called and finish is FinishReason.STOP else str(finish)

    def message(self) -> Json:
        """The assistant's message. A call that broke off is left out: its arguments would not
        parse."""
        said: Json = {"role": "assistant", "content": "".join(self._content), "refusal": None}
        if self._thoughts:
            said["reasoning_content"] = "".join(self._thoughts)
        n_complete = 0 if self._calls is None else self._calls.n_complete
        if n_complete:
            said["content"] = said["content"] or None
            said["tool_calls"] = [
                {
                    "id": call_id,
                    "type": "function",
                    "function": {"name": name, "arguments": "".join(arguments)},
                }
                for call_id, name, arguments in self._made[:n_complete]
            ]
        return said

    def _split(self, pieces: Iterable[tuple[bool, str]]) -> list[Json]:
        deltas: list[Json] = []
        for is_thought, text in pieces:
            if is_thought:
                self._thoughts.append(text)
                deltas.append({"reasoning_content": text})
            else:
                deltas += self._read(text)
        return deltas

    def _read(self, text: str) -> list[Json]:
        parts: Iterable[Part] = [TextPart(text)]
        if self._calls is not None:
            parts = self._calls.push(text)
        return [self._delta(part) for part in parts]

    def _delta(self, part: Part) -> Json:
        if isinstance(part, TextPart):
            self._content.append(part.text)
            return {"content": part.text}
        if isinstance(part, CallPart):
            call_id = self._dialect.new_id()
            self._made.append((call_id, part.name, []))
            function = {"name": part.name, "arguments": ""}
            opened = {"index": part.index, "id": call_id, "type": "function"}
            return {"tool_calls": [{**opened, "function": function}]}
        assert isinstance(part, ArgumentsPart)
        self._made[part.index][2].append(part.text)
        function = {"arguments": part.text}
        return {"tool_calls": [{"index": part.index, "function": function}]}
