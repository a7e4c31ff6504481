"""A body of Anthropic's /v1/messages, as the body of a chat that asks for the same."""

from __future__ import annotations

from collections.abc import Mapping

import orjson

from api.replies.openai import Json
from api.requests.fields import (
    MAX_INT,
    Body,
    Field,
    boolean,
    integer,
    mapping,
    stop_strings,
)
from api.requests.foreign_body import a_list, a_text, an_object, passed_on, unsupported
from api.requests.generation import messages_list
from dllama.errors import RequestError

DEFAULT_MAX_TOKENS = 4096  # as llama-server has it; Anthropic's clients always say


def anything(value: object, name: str) -> object:
    return value


MESSAGES = Field(("messages",), messages_list, None)
MAX_TOKENS = Field(("max_tokens",), integer(1, MAX_INT), DEFAULT_MAX_TOKENS)
SYSTEM = Field(("system",), anything, None)
STOP_SEQUENCES: Field[tuple[str, ...], tuple[str, ...]] = Field(
    ("stop_sequences",), stop_strings, ()
)
STREAM = Field(("stream",), boolean, False)
TOOLS = Field(("tools",), a_list, None)
TOOL_CHOICE = Field(("tool_choice",), mapping, None)
THINKING = Field(("thinking",), mapping, None)
OUTPUT_CONFIG = Field(("output_config",), mapping, None)
OWN: tuple[Field[object, object], ...] = (
    MESSAGES, MAX_TOKENS, SYSTEM, STOP_SEQUENCES, STREAM, TOOLS, TOOL_CHOICE, THINKING,
    OUTPUT_CONFIG,
)  # fmt: skip
HARMLESS = frozenset(
    {"cache_control", "diagnostics", "inference_geo", "speed", "user_profile_id", "workspace_id"}
)  # where, how fast and for whom; not what


def chat_body(body: Body, route: str) -> Json:
    """The body of a chat. Raises RequestError naming the field at fault."""
    chat = passed_on(body, OWN, HARMLESS, route)
    found = MESSAGES.of(body)
    if not found:
        raise RequestError(
            '`messages` is missing or empty; send {"role": "user", "content": "Hello"} at least.',
            param="messages",
        )
    messages = system_messages(SYSTEM.of(body))
    for i, message in enumerate(found):
        messages += chat_messages(message, f"messages[{i}]")
    chat["messages"] = messages
    chat["max_tokens"] = MAX_TOKENS.of(body)
    chat["stream"] = STREAM.of(body)
    chat["stream_options"] = {"include_usage": True}
    if stops := STOP_SEQUENCES.of(body):
        chat["stop"] = list(stops)
    chat |= tool_fields(TOOLS.of(body), TOOL_CHOICE.of(body))
    kwargs = chat.get("chat_template_kwargs")
    chat |= thinking_fields(THINKING.of(body), kwargs, MAX_TOKENS.of(body))
    chat |= output_fields(OUTPUT_CONFIG.of(body))
    return chat


def system_messages(system: object) -> list[Json]:
    if system is None or system == "" or system == []:
        return []
    if isinstance(system, str):
        return [{"role": "system", "content": system}]
    blocks = [text_block(b, f"system[{i}]") for i, b in enumerate(a_list(system, "system"))]
    return [{"role": "system", "content": "\n".join(blocks)}]


def text_block(block: object, path: str) -> str:
    """The text of a block that may be nothing else."""
    found = an_object(block, path)
    if found.get("type") != "text":
        raise unsupported(path, found.get("type"), "'text' here")
    return a_text(found, "text", path)


def chat_messages(message: Mapping[str, object], path: str) -> list[Json]:
    """The messages of a chat that one of Anthropic's stands for: results of tools are messages of
    their own."""
    role, content = message.get("role"), message.get("content")
    if role not in ("user", "assistant"):
        raise RequestError(
            f"`{path}.role` is {str(role)[:60]!r}; use user or assistant, and the field `system`.",
            param=f"{path}.role",
        )
    if isinstance(content, str):
        return [{"role": role, "content": content}]
    blocks = a_list(content, f"{path}.content")
    return (user_messages if role == "user" else assistant_messages)(blocks, f"{path}.content")


def user_messages(blocks: list[object], path: str) -> list[Json]:
    results: list[Json] = []
    texts: list[str] = []
    for i, block in enumerate(blocks):
        where = f"{path}[{i}]"
        found = an_object(block, where)
        if found.get("type") == "tool_result":
            results.append(tool_result(found, where))
        elif found.get("type") == "text":
            texts.append(a_text(found, "text", where))
        else:
            raise unsupported(where, found.get("type"), "'text' and 'tool_result'")
    if texts or not results:
        results.append({"role": "user", "content": "\n".join(texts)})
    return results


def tool_result(block: Mapping[str, object], path: str) -> Json:
    content = block.get("content", "")
    if not isinstance(content, str):
        parts = a_list(content, f"{path}.content")
        content = "\n".join(text_block(p, f"{path}.content[{i}]") for i, p in enumerate(parts))
    if block.get("is_error") is True:  # a chat has no field for it, and the model must know
        content = f"Error: {content}"
    return {"role": "tool", "tool_call_id": a_text(block, "tool_use_id", path), "content": content}


def assistant_messages(blocks: list[object], path: str) -> list[Json]:
    texts: list[str] = []
    thoughts: list[str] = []
    calls: list[Json] = []
    for i, block in enumerate(blocks):
        where = f"{path}[{i}]"
        found = an_object(block, where)
        kind = found.get("type")
        if kind == "text":
            texts.append(a_text(found, "text", where))
        elif kind == "thinking":
            thoughts.append(a_text(found, "thinking", where))
        elif kind == "tool_use":
            calls.append(tool_use(found, where))
        else:
            raise unsupported(where, kind, "'text', 'thinking' and 'tool_use'")
    message: Json = {"role": "assistant", "content": "\n".join(texts)}
    if thoughts:
        message["reasoning_content"] = "\n".join(thoughts)
    if calls:
        message["tool_calls"] = calls
        message["content"] = message["content"] or None
    return [message]


def tool_use(block: Mapping[str, object], path: str) -> Json:
    arguments = orjson.dumps(an_object(block.get("input", {}), f"{path}.input")).decode()
    function = {"name": a_text(block, "name", path), "arguments": arguments}
    return {"id": a_text(block, "id", path), "type": "function", "function": function}


def tool_fields(tools: list[object] | None, choice: Mapping[str, object] | None) -> Json:
    """`tools`, `tool_choice` and `parallel_tool_calls` of a chat."""
    fields: Json = {}
    if tools:
        fields["tools"] = [a_tool(tool, f"tools[{i}]") for i, tool in enumerate(tools)]
    if choice is not None:
        kind = choice.get("type")
        if kind == "tool":
            named = {"name": a_text(choice, "name", "tool_choice")}
            fields["tool_choice"] = {"type": "function", "function": named}
        elif isinstance(kind, str) and kind in CHOICES:
            fields["tool_choice"] = CHOICES[kind]
        else:
            raise unsupported("tool_choice", kind, "'auto', 'any', 'tool' and 'none'")
        alone = choice.get("disable_parallel_tool_use", False)
        if boolean(alone, "tool_choice.disable_parallel_tool_use"):
            fields["parallel_tool_calls"] = False
    return fields


CHOICES = {"auto": "auto", "any": "required", "none": "none"}


def a_tool(tool: object, path: str) -> Json:
    found = an_object(tool, path)
    if found.get("type", "custom") not in ("custom", None):
        raise unsupported(path, found["type"], "'custom' tools, which the client runs")
    schema = an_object(found.get("input_schema", {}), f"{path}.input_schema")
    function: Json = {"name": a_text(found, "name", path), "parameters": schema}
    if found.get("description") is not None:
        function["description"] = a_text(found, "description", path)
    return {"type": "function", "function": function}


def thinking_fields(thinking: Mapping[str, object] | None, kwargs: object, max_tokens: int) -> Json:
    """Thinking on or off, as the template knows it; `kwargs` are those that the body has. A budget
    that the whole answer could not exceed is no limit; another cannot be kept to."""
    if thinking is None:
        return {}
    kind = thinking.get("type")
    if kind not in ("enabled", "disabled", "adaptive"):
        raise unsupported("thinking", kind, "'enabled', 'adaptive' and 'disabled'")
    own = dict(kwargs) if isinstance(kwargs, dict) else {}
    if kind != "adaptive":
        own.setdefault("enable_thinking", kind == "enabled")
    budget = thinking.get("budget_tokens")
    if kind == "enabled" and budget is not None:
        name = "thinking.budget_tokens"
        if integer(1, MAX_INT)(budget, name) < max_tokens:
            raise RequestError(
                f"`{name}` ({budget}) is less than `max_tokens` ({max_tokens}), and this server "
                'cannot hold thoughts to a length of their own; send {"type": "adaptive"}, or a '
                "budget of `max_tokens`.",
                param=name,
            )
    return {"chat_template_kwargs": own}


def output_fields(config: Mapping[str, object] | None) -> Json:
    """`output_config`: a schema that the answer follows."""
    fields: Json = {}
    for name, value in (config or {}).items():
        if value is None:
            continue
        if name == "effort":
            fields["reasoning_effort"] = value
        elif name == "format":
            asked = an_object(value, "output_config.format")
            if asked.get("type") != "json_schema":
                raise unsupported("output_config.format", asked.get("type"), "'json_schema'")
            schema = {"name": "output", "schema": asked.get("schema"), "strict": True}
            fields["response_format"] = {"type": "json_schema", "json_schema": schema}
        else:
            raise RequestError(
                f"`output_config.{name:.100}` is not supported; leave it out.",
                param=f"output_config.{name:.100}",
            )
    return fields
