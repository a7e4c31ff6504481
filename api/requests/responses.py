"""Bodies of OpenAI's /v1/responses, once checked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from api.answers.events import Call, Message
from api.requests.answer_format import AnswerFormat, named_schema, response_format
from api.requests.conversation import (
    REASONING_FORMAT,
    TEMPLATE_KWARGS,
    ChatRequest,
    Conversation,
    TemplateMessage,
    assistant_message,
    effort,
    is_continued,
    message,
    thinking_kwargs,
    tool_call,
    tool_result,
)
from api.requests.fields import (
    MAX_INT,
    Body,
    Field,
    a_list,
    a_text,
    boolean,
    check_names,
    check_off,
    integer,
    mapping,
    string,
    unsupported,
    wrong,
)
from api.requests.generation import COMMON, INCLUDE_OBFUSCATION, parse_common
from api.tools.tool_request import NamedFunction, Tool, ToolChoice, choose_tools, make_tools
from dllama.errors import RequestError


def input_value(value: object, name: str) -> object:
    if not isinstance(value, str | list):
        raise wrong(name, "a string or a list of items", value)
    return value


def includes(value: object, name: str) -> list[object]:
    """Reads `include`: reasoning is never encrypted here, so the one value that is taken adds
    nothing."""
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


def tool_choice(value: object, name: str) -> ToolChoice:
    """A word, or a function by name."""
    if value == "auto" or value == "none" or value == "required":
        return value
    if isinstance(value, dict) and value.get("type") == "function":
        return NamedFunction(a_text(value, "name", name))
    raise wrong(name, '"auto", "none", "required" or {"type": "function", "name": "f"}', value)


TOOL_CHOICE: Field[ToolChoice, ToolChoice] = Field(("tool_choice",), tool_choice, "auto")
HARMLESS = frozenset({"max_tool_calls", "prompt_cache_options", "access_programs"})
# max_tool_calls bounds tools that the server runs itself; this one runs none.
FIELDS: tuple[Field[object, object], ...] = (
    INPUT, INSTRUCTIONS, MAX_OUTPUT_TOKENS, PREVIOUS, STORE, STREAM_OPTIONS, TOOLS, TOOL_CHOICE,
    PARALLEL, TEXT, REASONING, METADATA, INCLUDE, BACKGROUND, TRUNCATION, TOP_LOGPROBS,
    TEMPLATE_KWARGS, REASONING_FORMAT, *COMMON,
)  # fmt: skip
NAMES = HARMLESS | {field.names[0] for field in FIELDS}


@dataclass(frozen=True, slots=True)
class ResponsesRequest:
    """`chat` is the request to answer; `messages` is the conversation to store, without the
    instructions; `echo` holds the fields of the request that a response repeats."""

    chat: ChatRequest
    messages: list[TemplateMessage]
    is_stored: bool
    echo: dict[str, object]


def parse_responses(body: Body, earlier: Sequence[TemplateMessage], route: str) -> ResponsesRequest:
    """The chat that a body asks for, after the `earlier` messages of the response that it
    continues. RequestError names the field at fault."""
    check_names(body, NAMES, route)
    refuse_unsupported(body)
    asked = INPUT.of(body)
    if asked is None or asked == []:
        raise RequestError("`input` is missing or empty; send a string or items.", param="input")
    messages = [*earlier, *input_messages(asked)]
    instructions = INSTRUCTIONS.of(body)
    rendered = [message("system", instructions), *messages] if instructions else messages
    strength = parse_reasoning(REASONING.of(body))
    conversation = Conversation(
        rendered,
        kwargs=thinking_kwargs(TEMPLATE_KWARGS.of(body), None, strength, "reasoning.effort"),
        is_continued=is_continued(rendered),
        tools=choose_tools(
            parse_tools(TOOLS.of(body)), TOOL_CHOICE.of(body), is_parallel=PARALLEL.of(body)
        ),
        reasoning=REASONING_FORMAT.of(body),
    )
    generation = parse_common(
        body, max_tokens=MAX_OUTPUT_TOKENS.of(body), form=parse_text(TEXT.of(body))
    )
    is_stored = STORE.of(body)
    chat = ChatRequest(generation, conversation)
    return ResponsesRequest(chat, messages, is_stored, echo_of(body, is_stored))


def refuse_unsupported(body: Body) -> None:
    """Raises RequestError for background jobs and truncation."""
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


def input_messages(asked: object) -> list[TemplateMessage]:
    """Returns the template's messages for the items of an input."""
    if isinstance(asked, str):
        return [message("user", asked)]
    messages: list[TemplateMessage] = []
    thoughts: list[str] = []
    for i, item in enumerate(a_list(asked, "input")):
        path = f"input[{i}]"
        found = mapping(item, path)
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


def a_message(item: Mapping[str, object], path: str) -> TemplateMessage:
    role, content = item.get("role"), item.get("content")
    if isinstance(content, str):
        return message(role, content)
    return message(role, content_text(a_list(content, f"{path}.content"), path))


def content_text(parts: list[object], path: str) -> str:
    """Returns the text of the parts of an item's content."""
    texts = []
    for i, part in enumerate(parts):
        where = f"{path}.content[{i}]"
        found = mapping(part, where)
        kind = found.get("type")
        if kind == "refusal":
            texts.append(a_text(found, "refusal", where))
        elif kind in ("input_text", "output_text", "text"):
            texts.append(a_text(found, "text", where))
        else:
            raise unsupported(where, kind, "'input_text', 'output_text' and 'refusal'")
    return "\n".join(texts)


def join_call(messages: list[TemplateMessage], item: Mapping[str, object], path: str) -> None:
    """Adds a tool call to the assistant's message before it, or to one of its own."""
    arguments = a_text(item, "arguments", path)
    name, call_id = a_text(item, "name", path), a_text(item, "call_id", path)
    if not messages or messages[-1]["role"] != "assistant":
        messages.append(message("assistant", None))
    calls = messages[-1].setdefault("tool_calls", [])
    assert isinstance(calls, list)
    calls.append(tool_call(Call(call_id, name, arguments)))


def call_output(item: Mapping[str, object], path: str) -> TemplateMessage:
    output = item.get("output", "")
    if not isinstance(output, str):
        parts = a_list(output, f"{path}.output")
        output = content_text(parts, path)
    return tool_result(a_text(item, "call_id", path), output)


def reasoning_texts(item: Mapping[str, object], path: str) -> list[str]:
    parts = a_list(item.get("content") or [], f"{path}.content")
    found = [mapping(part, f"{path}.content[{i}]") for i, part in enumerate(parts)]
    return [a_text(part, "text", f"{path}.content[{i}]") for i, part in enumerate(found)]


def parse_tools(tools: list[object] | None) -> tuple[Tool, ...]:
    paths = [f"tools[{i}]" for i in range(len(tools or ()))]
    functions = [a_tool(tool, path) for tool, path in zip(tools or (), paths, strict=True)]
    return make_tools(functions, paths)


def a_tool(tool: object, path: str) -> Mapping[str, object]:
    """Returns the function that a tool describes."""
    found = mapping(tool, path)
    if found.get("type") != "function":
        raise unsupported(path, found.get("type"), "'function' tools, which the client runs")
    names = ("name", "description", "parameters", "strict")
    return {name: found[name] for name in names if found.get(name) is not None}


def parse_text(text: Mapping[str, object] | None) -> AnswerFormat | None:
    """Returns the form that `text` asks for."""
    form = None
    for name, value in (text or {}).items():
        path = f"text.{name:.100}"
        if value is None:
            continue
        if name == "verbosity":
            check_off("verbosity", value, path)
        elif name == "format":
            asked = mapping(value, path)
            if asked.get("type") == "json_schema":
                form = named_schema(asked, path, path)
            else:
                form = response_format(asked, path)
        else:
            raise RequestError(f"`{path}` is not supported; leave it out.", param=path)
    return form


def parse_reasoning(reasoning: Mapping[str, object] | None) -> str | None:
    """Returns the effort that `reasoning` asks for. A summary is not made; the thoughts themselves
    are shown."""
    strength = None
    for name, value in (reasoning or {}).items():
        path = f"reasoning.{name:.100}"
        if name == "effort" and value is not None:
            strength = effort(value, path)
        elif name not in ("effort", "summary", "generate_summary"):
            raise RequestError(f"`{path}` is not supported; leave it out.", param=path)
    return strength


def said_messages(said: Message) -> list[TemplateMessage]:
    """Returns the messages of an answer, for the conversation that continues it."""
    if not said.text and not said.calls:
        return []
    return [assistant_message(said.text, said.thoughts, said.calls)]


def echo_of(body: Body, is_stored: bool) -> dict[str, object]:
    """Returns the fields of the request that a response repeats, with OpenAI's defaults."""
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
