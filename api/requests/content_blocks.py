"""Anthropic's messages, made of blocks, as the template's messages."""

from __future__ import annotations

from collections.abc import Mapping

import orjson

from api.answers.events import Call
from api.requests.fields import a_list, a_text, mapping, type_of, unsupported
from api.requests.prompts.conversation import (
    TemplateMessage,
    assistant_message,
    message,
    tool_result,
)
from dllama.errors import RequestError

# Blocks that say nothing to a model here, in a conversation that another server has begun.
_UNREADABLE = frozenset({"redacted_thinking"})
# Blocks about tools that ran elsewhere: the text that follows tells what they found.
_LEFT_OUT = frozenset(
    {
        "server_tool_use", "mcp_tool_use", "mcp_tool_result", "tool_reference", "tool_addition",
        "tool_removal", "mcp_tool_listing", "fallback",
    }
)  # fmt: skip
_TEXTS = "'text', 'search_result', and 'document' with text"


class BlockReader:
    """Reads messages; `left_out` are the paths and types of blocks that no message tells of."""

    def __init__(self) -> None:
        self.left_out: list[str] = []

    def system(self, system: object) -> list[TemplateMessage]:
        """Returns the message that the field `system` is, none for an empty one."""
        text = self._content(system, "system")
        return [message("system", text)] if text else []

    def messages(self, item: Mapping[str, object], path: str) -> list[TemplateMessage]:
        """Returns the template's messages for one of Anthropic's: results of tools are messages of
        their own."""
        role, content = item.get("role"), item.get("content")
        if role not in ("user", "assistant", "system"):
            raise RequestError(
                f"`{path}.role` is {str(role)[:60]!r}; use user, assistant or system.",
                param=f"{path}.role",
            )
        path = f"{path}.content"
        if role == "system":
            return [message("system", self._content(content, path))]
        if content is None or isinstance(content, str):
            return [message(role, content or "")]
        blocks = a_list(content, path)
        return (self._user if role == "user" else self._assistant)(blocks, path)

    def _user(self, blocks: list[object], path: str) -> list[TemplateMessage]:
        results: list[TemplateMessage] = []
        texts: list[str] = []
        for i, block in enumerate(blocks):
            where = f"{path}[{i}]"
            found = mapping(block, where)
            if type_of(found) == "tool_result":
                results.append(self._result(found, where))
            else:
                texts.append(self._text(found, where))
        if any(texts) or not results:
            results.append(message("user", _joined(texts)))
        return results

    def _result(self, block: Mapping[str, object], path: str) -> TemplateMessage:
        content = self._content(block.get("content"), f"{path}.content")
        if block.get("is_error") is True:  # a chat has no field for it, and the model must know
            content = f"Error: {content}"
        return tool_result(a_text(block, "tool_use_id", path), content)

    def _assistant(self, blocks: list[object], path: str) -> list[TemplateMessage]:
        texts: list[str] = []
        thoughts: list[str] = []
        calls: list[Call] = []
        for i, block in enumerate(blocks):
            where = f"{path}[{i}]"
            found = mapping(block, where)
            kind = type_of(found)
            if kind == "thinking":
                thoughts.append(a_text(found, "thinking", where))
            elif kind == "tool_use":
                calls.append(_tool_use(found, where))
            elif kind not in _UNREADABLE:
                texts.append(self._text(found, where))
        return [assistant_message(_joined(texts), _joined(thoughts), calls)]

    def _content(self, content: object, path: str) -> str:
        """Returns the text of a content that is nothing but text: a string, blocks, or null."""
        if content is None or isinstance(content, str):
            return content or ""
        blocks = a_list(content, path)
        return _joined([self._text(b, f"{path}[{i}]") for i, b in enumerate(blocks)])

    def _text(self, block: object, path: str) -> str:
        """Returns the text of a block, "" for one that is left out."""
        found = mapping(block, path)
        kind = type_of(found)
        if kind == "text":
            return a_text(found, "text", path)
        if kind == "search_result":
            head = _joined([str(found.get(key) or "") for key in ("title", "source")])
            return _joined([head, self._content(found.get("content"), f"{path}.content")])
        if kind == "document":
            return self._document(found, path)
        if kind == "compaction":
            return self._content(found.get("content"), f"{path}.content")
        if isinstance(kind, str) and (kind in _LEFT_OUT or kind.endswith("_tool_result")):
            self.left_out.append(f"{path}:{kind}")
            return ""
        raise unsupported(path, kind, _TEXTS)

    def _document(self, block: Mapping[str, object], path: str) -> str:
        source = mapping(block.get("source"), f"{path}.source")
        kind = type_of(source)
        if kind == "text":
            text = a_text(source, "data", f"{path}.source")
        elif kind == "content":
            text = self._content(source.get("content"), f"{path}.source.content")
        else:
            raise unsupported(f"{path}.source", kind, "documents of the types 'text' and 'content'")
        return _joined([str(block.get(key) or "") for key in ("title", "context")] + [text])


def _joined(texts: list[str]) -> str:
    return "\n".join(text for text in texts if text)


def _tool_use(block: Mapping[str, object], path: str) -> Call:
    arguments = mapping(block.get("input") or {}, f"{path}.input")
    call_id, name = a_text(block, "id", path), a_text(block, "name", path)
    return Call(call_id, name, orjson.dumps(arguments).decode())
