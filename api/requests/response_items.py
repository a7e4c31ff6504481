"""The items of a response's `input` as the template's messages."""

from __future__ import annotations

from collections.abc import Mapping

import orjson

from api.answers.events import Call
from api.requests.fields import a_list, a_text, mapping, type_of, unsupported
from api.requests.prompts.conversation import TemplateMessage, message, tool_call, tool_result
from api.requests.prompts.message_forms import TEXT_PARTS, without_empty_end

# Items that hold what this server cannot read or find, without which the conversation is another.
_REFUSED = frozenset({"item_reference", "compaction"})
# Calls of tools that the client runs, but that no function describes, and their results.
_CALLS = frozenset(
    {"custom_tool_call", "local_shell_call", "shell_call", "apply_patch_call", "mcp_call"}
)
_OUTPUTS = frozenset(
    {
        "function_call_output", "custom_tool_call_output", "local_shell_call_output",
        "shell_call_output", "apply_patch_call_output",
    }
)  # fmt: skip
_NOT_ARGUMENTS = frozenset({"type", "id", "call_id", "status", "name", "output", "error"})


class ItemReader:
    """Reads items; `left_out` are the paths and types of those that no message tells of."""

    def __init__(self) -> None:
        self.left_out: list[str] = []
        self._messages: list[TemplateMessage] = []
        self._thoughts: list[str] = []

    def messages(self, asked: object) -> list[TemplateMessage]:
        """Returns the messages of an input."""
        if isinstance(asked, str):
            return [message("user", asked)]
        for i, item in enumerate(a_list(asked, "input")):
            self._read(mapping(item, f"input[{i}]"), f"input[{i}]")
        return without_empty_end(self._messages)

    def _read(self, item: Mapping[str, object], path: str) -> None:
        kind = type_of(item)
        kind = "message" if kind is None else kind
        if kind == "message":
            self._messages.append(self._message(item, path))
        elif kind == "function_call":
            name, call_id = a_text(item, "name", path), a_text(item, "call_id", path)
            self._add_call(Call(call_id, name, a_text(item, "arguments", path)))
        elif kind == "reasoning":
            self._thoughts += _thoughts(item, path)
            return
        elif isinstance(kind, str) and kind in _OUTPUTS:
            self._messages.append(self._output(item, path))
        elif isinstance(kind, str) and kind in _CALLS:
            self._other_call(item, kind, path)
        elif not isinstance(kind, str) or kind in _REFUSED:
            raise unsupported(path, kind, "messages, calls of tools, their results and reasoning")
        else:
            self.left_out.append(f"{path}:{kind[:60]}")
            return
        if self._thoughts and self._messages[-1]["role"] == "assistant":
            self._messages[-1]["reasoning_content"] = "\n".join(self._thoughts)
            self._thoughts = []

    def _message(self, item: Mapping[str, object], path: str) -> TemplateMessage:
        return message(item.get("role"), self._text(item.get("content"), f"{path}.content"))

    def _text(self, content: object, path: str) -> str:
        """Returns the text of a content: a string, parts, or null."""
        if content is None or isinstance(content, str):
            return content or ""
        texts = []
        for i, part in enumerate(a_list(content, path)):
            where = f"{path}[{i}]"
            found = mapping(part, where)
            kind = type_of(found)
            if not isinstance(kind, str) or kind not in TEXT_PARTS:
                raise unsupported(where, kind, "'input_text', 'output_text' and 'refusal'")
            texts.append(a_text(found, TEXT_PARTS[kind], where))
        return "\n".join(text for text in texts if text)

    def _add_call(self, call: Call) -> None:
        """Adds a tool call to the assistant's message before it, or to one of its own."""
        if not self._messages or self._messages[-1]["role"] != "assistant":
            self._messages.append(message("assistant", None))
        calls = self._messages[-1].setdefault("tool_calls", [])
        assert isinstance(calls, list)
        calls.append(tool_call(call))

    def _other_call(self, item: Mapping[str, object], kind: str, path: str) -> None:
        """Adds a call whose arguments stand in the item itself, and the result if it has one."""
        call_id = str(item.get("call_id") or item.get("id") or path)
        arguments = item.get("arguments")
        if not isinstance(arguments, str):
            kept = {k: v for k, v in item.items() if k not in _NOT_ARGUMENTS and v is not None}
            arguments = orjson.dumps(kept).decode()
        name = item.get("name")
        self._add_call(Call(call_id, name if isinstance(name, str) else kind, arguments))
        if item.get("output") is not None:
            self._messages.append(self._output({**item, "call_id": call_id}, path))

    def _output(self, item: Mapping[str, object], path: str) -> TemplateMessage:
        output = item.get("output")
        key = "call_id" if item.get("call_id") is not None else "id"
        call_id = a_text(item, key, path)
        if output is None or isinstance(output, str) or _is_content(output):
            return tool_result(call_id, self._text(output, f"{path}.output"))
        return tool_result(call_id, orjson.dumps(output).decode())  # of a shell: streams, exit code


_CONTENTS = frozenset({*TEXT_PARTS, "input_image", "input_file", "input_audio"})


def _is_content(output: object) -> bool:
    """True for parts such as messages have."""
    return isinstance(output, list) and all(
        isinstance(part, dict) and type_of(part) in _CONTENTS for part in output
    )


def _thoughts(item: Mapping[str, object], path: str) -> list[str]:
    """Returns the texts of a reasoning item; what is encrypted says nothing here."""
    parts = a_list(item.get("content") or [], f"{path}.content")
    found = [mapping(part, f"{path}.content[{i}]") for i, part in enumerate(parts)]
    return [a_text(part, "text", f"{path}.content[{i}]") for i, part in enumerate(found)]
