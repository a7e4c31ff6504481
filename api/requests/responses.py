"""A body of OpenAI's /v1/responses, as the body of a chat that asks for the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from api.replies.openai import Json
from api.requests.fields import MAX_INT, Body, Field, boolean, integer, mapping, string, wrong
from api.requests.foreign_body import a_list, a_text, an_object, passed_on, unsupported
from api.requests.generation import INCLUDE_OBFUSCATION
from dllama.errors import RequestError


def input_value(value: object, name: str) -> object:
    if not isinstance(value, str | list):
        raise wrong(name, "a string or a list of items", value)
    return value


def includes(value: object, name: str) -> list[object]:
    """What may be asked for besides; reasoning is never encrypted here, so there is nothing to
    add."""
    found = a_list(value, name)
    for item in found:
        if item != "reasoning.encrypted_content":
            raise wrong(name, 'a list of nothing but "reasoning.encrypted_content"', item)
    return found


INPUT = Field(("input",), input_value, None)
INSTRUCTIONS = Field(("instructions",), string, None)
MAX_OUTPUT_TOKENS = Field(("max_output_tokens",), integer(1, MAX_INT), None)
PREVIOUS = Field(("previous_response_id",), string, None)
STORE = Field(("store",), boolean, True)
STREAM = Field(("stream",), boolean, False)
STREAM_OPTIONS = Field(("stream_options",), mapping, None)
TOOLS = Field(("tools",), a_list, None)
PARALLEL = Field(("parallel_tool_calls",), boolean, True)
TEXT = Field(("text",), mapping, None)
REASONING = Field(("reasoning",), mapping, None)
METADATA = Field(("metadata",), mapping, None)
INCLUDE = Field(("include",), includes, None)
BACKGROUND = Field(("background",), boolean, False)
TRUNCATION = Field(("truncation",), string, "disabled")
TOP_LOGPROBS = Field(("top_logprobs",), integer(0, 0), 0)


def tool_choice(value: object, name: str) -> object:
    """As chat has it: a word, or a function by name."""
    if value in ("auto", "none", "required"):
        return value
    if isinstance(value, dict) and value.get("type") == "function":
        return {"type": "function", "function": {"name": a_text(value, "name", name)}}
    raise wrong(name, '"auto", "none", "required" or {"type": "function", "name": "f"}', value)


TOOL_CHOICE = Field(("tool_choice",), tool_choice, None)
OWN: tuple[Field[object, object], ...] = (
    INPUT, INSTRUCTIONS, MAX_OUTPUT_TOKENS, PREVIOUS, STORE, STREAM, STREAM_OPTIONS, TOOLS,
    TOOL_CHOICE, PARALLEL, TEXT, REASONING, METADATA, INCLUDE, BACKGROUND, TRUNCATION,
    TOP_LOGPROBS,
)  # fmt: skip
HARMLESS = frozenset({"max_tool_calls", "prompt_cache_options", "access_programs"})
# max_tool_calls bounds tools that the server runs itself; this one runs none.


@dataclass(frozen=True, slots=True)
class ResponsesRequest:
    """`chat` is the body to answer; `messages` are those to remember, all but the instructions;
    `echo` is what a response repeats of its request."""

    chat: Json
    messages: list[Json]
    is_stored: bool
    echo: Json = field(default_factory=dict)


def parse_responses(body: Body, earlier: Sequence[Json], route: str) -> ResponsesRequest:
    """The chat that a body asks for, after the `earlier` messages of the response it goes on with.
    Raises RequestError naming the field at fault."""
    chat = passed_on(body, OWN, HARMLESS, route)
    refuse_what_is_not_here(body)
    asked = INPUT.of(body)
    if asked is None or asked == []:
        raise RequestError("`input` is missing or empty; send a string or items.", param="input")
    messages = [*earlier, *input_messages(asked)]
    instructions = INSTRUCTIONS.of(body)
    opening: list[Json] = []
    if instructions:
        opening.append({"role": "system", "content": instructions})
    chat |= {"messages": opening + messages, "stream": STREAM.of(body)}
    chat["stream_options"] = {"include_usage": True}
    if (limit := MAX_OUTPUT_TOKENS.of(body)) is not None:
        chat["max_tokens"] = limit
    if tools := TOOLS.of(body):
        chat["tools"] = [a_tool(tool, f"tools[{i}]") for i, tool in enumerate(tools)]
    if (choice := TOOL_CHOICE.of(body)) is not None:
        chat["tool_choice"] = choice
    if not PARALLEL.of(body):
        chat["parallel_tool_calls"] = False
    chat |= text_fields(TEXT.of(body)) | reasoning_fields(REASONING.of(body))
    is_stored = STORE.of(body)
    return ResponsesRequest(chat, messages, is_stored, echo_of(body, is_stored))


def refuse_what_is_not_here(body: Body) -> None:
    """Raises RequestError for a job in the background, and for cutting the input."""
    if BACKGROUND.of(body):
        raise RequestError("`background` is not supported; leave it out.", param="background")
    if TRUNCATION.of(body) != "disabled":
        raise RequestError(
            '`truncation` other than "disabled" is not supported; leave it out.',
            param="truncation",
        )
    TOP_LOGPROBS.of(body)
    INCLUDE.of(body)
    for name, value in (STREAM_OPTIONS.of(body) or {}).items():
        if name not in INCLUDE_OBFUSCATION.names:
            raise RequestError(
                f"`stream_options` knows no field `{name:.100}`; leave it out.", param=name[:100]
            )
        boolean(value, name)


def input_messages(asked: object) -> list[Json]:
    """The messages of a chat that the items of an input stand for."""
    if isinstance(asked, str):
        return [{"role": "user", "content": asked}]
    messages: list[Json] = []
    thoughts: list[str] = []
    for i, item in enumerate(a_list(asked, "input")):
        path = f"input[{i}]"
        found = an_object(item, path)
        kind = found.get("type", "message")
        if kind == "message":
            messages.append(a_message(found, path))
        elif kind == "function_call":
            join_call(messages, found, path)
        elif kind == "function_call_output":
            messages.append(call_output(found, path))
        elif kind == "reasoning":
            thoughts += reasoning_texts(found, path)
            continue
        else:
            raise unsupported(
                path, kind, "'message', 'function_call', 'function_call_output' and 'reasoning'"
            )
        if thoughts and messages[-1]["role"] == "assistant":
            messages[-1]["reasoning_content"] = "\n".join(thoughts)
            thoughts = []
    return messages


def a_message(item: Mapping[str, object], path: str) -> Json:
    role, content = item.get("role"), item.get("content")
    if isinstance(content, str):
        return {"role": role, "content": content}
    texts = []
    for i, part in enumerate(a_list(content, f"{path}.content")):
        where = f"{path}.content[{i}]"
        found = an_object(part, where)
        kind = found.get("type")
        if kind == "refusal":
            texts.append(a_text(found, "refusal", where))
        elif kind in ("input_text", "output_text", "text"):
            texts.append(a_text(found, "text", where))
        else:
            raise unsupported(where, kind, "'input_text', 'output_text' and 'refusal'")
    return {"role": role, "content": "\n".join(texts)}


def join_call(messages: list[Json], item: Mapping[str, object], path: str) -> None:
    """Adds a tool call to the assistant's message before it, or to one of its own."""
    function = {
        "name": a_text(item, "name", path),
        "arguments": a_text(item, "arguments", path),
    }
    call = {"id": a_text(item, "call_id", path), "type": "function", "function": function}
    if not messages or messages[-1]["role"] != "assistant":
        messages.append({"role": "assistant", "content": None, "tool_calls": []})
    calls = messages[-1].setdefault("tool_calls", [])
    assert isinstance(calls, list)
    calls.append(call)


def call_output(item: Mapping[str, object], path: str) -> Json:
    output = item.get("output", "")
    if not isinstance(output, str):
        parts = a_list(output, f"{path}.output")
        output = a_message({"role": "tool", "content": parts}, path)["content"]
    return {"role": "tool", "tool_call_id": a_text(item, "call_id", path), "content": output}


def reasoning_texts(item: Mapping[str, object], path: str) -> list[str]:
    parts = a_list(item.get("content") or [], f"{path}.content")
    found = [an_object(part, f"{path}.content[{i}]") for i, part in enumerate(parts)]
    return [a_text(part, "text", f"{path}.content[{i}]") for i, part in enumerate(found)]


def a_tool(tool: object, path: str) -> Json:
    found = an_object(tool, path)
    if found.get("type") != "function":
        raise unsupported(path, found.get("type"), "'function' tools, which the client runs")
    names = ("name", "description", "parameters", "strict")
    function = {name: found[name] for name in names if found.get(name) is not None}
    return {"type": "function", "function": function}


def text_fields(text: Mapping[str, object] | None) -> Json:
    fields: Json = {}
    for name, value in (text or {}).items():
        if value is None:
            continue
        if name == "verbosity":
            fields["verbosity"] = value
        elif name == "format":
            fields["response_format"] = text_format(an_object(value, "text.format"))
        else:
            raise RequestError(
                f"`text.{name:.100}` is not supported; leave it out.", param=f"text.{name:.100}"
            )
    return fields


def text_format(asked: Mapping[str, object]) -> Json:
    """`text.format` as chat's `response_format`, which has the schema one level deeper."""
    if asked.get("type") != "json_schema":
        return dict(asked)
    schema = {k: v for k, v in asked.items() if k != "type" and v is not None}
    return {"type": "json_schema", "json_schema": schema}


def reasoning_fields(reasoning: Mapping[str, object] | None) -> Json:
    """The effort; a summary is not made, the reasoning itself is told."""
    fields: Json = {}
    for name, value in (reasoning or {}).items():
        if name == "effort" and value is not None:
            fields["reasoning_effort"] = value
        elif name not in ("effort", "summary", "generate_summary"):
            raise RequestError(
                f"`reasoning.{name:.100}` is not supported; leave it out.",
                param=f"reasoning.{name:.100}",
            )
    return fields


def echo_of(body: Body, is_stored: bool) -> Json:
    """What a response repeats of its request, with OpenAI's values for what was not said."""
    names = ("instructions", "max_output_tokens", "previous_response_id", "temperature", "top_p",
             "user", "max_tool_calls", "safety_identifier", "prompt_cache_key")  # fmt: skip
    return {
        **{name: body.get(name) for name in names},
        "metadata": body.get("metadata") or {},
        "parallel_tool_calls": PARALLEL.of(body),
        "reasoning": {"effort": None, "summary": None, **(REASONING.of(body) or {})},
        "text": {"format": {"type": "text"}, **(TEXT.of(body) or {})},
        "tool_choice": body.get("tool_choice") or "auto",
        "tools": TOOLS.of(body) or [],
        "truncation": "disabled",
        "background": False,
        "store": is_stored,
    }
