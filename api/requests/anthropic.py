"""Bodies of Anthropic's /v1/messages, once checked."""

from __future__ import annotations

from collections.abc import Mapping

import orjson

from api.answers.events import Call
from api.requests.answer_format import AnswerFormat, named_schema
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
    integer,
    mapping,
    stop_strings,
    unsupported,
)
from api.requests.generation import COMMON, parse_common
from api.requests.openai import messages_list
from api.tools.tool_request import NamedFunction, ToolChoice, ToolRequest, choose_tools, make_tools
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
TOOLS = Field(("tools",), a_list, None)
TOOL_CHOICE = Field(("tool_choice",), mapping, None)
THINKING = Field(("thinking",), mapping, None)
OUTPUT_CONFIG = Field(("output_config",), mapping, None)
# Where, how fast and for whom; not what.
HARMLESS = frozenset(
    {"cache_control", "diagnostics", "inference_geo", "speed", "user_profile_id", "workspace_id"}
)
FIELDS: tuple[Field[object, object], ...] = (
    MESSAGES, MAX_TOKENS, SYSTEM, STOP_SEQUENCES, TOOLS, TOOL_CHOICE, THINKING, OUTPUT_CONFIG,
    TEMPLATE_KWARGS, REASONING_FORMAT, *COMMON,
)  # fmt: skip
NAMES = HARMLESS | {field.names[0] for field in FIELDS}


def parse_messages(body: Body, route: str) -> ChatRequest:
    """The chat that a body asks for. RequestError names the field at fault."""
    check_names(body, NAMES, route)
    found = MESSAGES.of(body)
    if not found:
        raise RequestError(
            '`messages` is missing or empty; send {"role": "user", "content": "Hello"} at least.',
            param="messages",
        )
    messages = system_messages(SYSTEM.of(body))
    for i, item in enumerate(found):
        messages += template_messages(item, f"messages[{i}]")
    strength, form = parse_output_config(OUTPUT_CONFIG.of(body))
    generation = parse_common(
        body,
        max_tokens=MAX_TOKENS.of(body),
        stops=STOP_SEQUENCES.of(body),
        form=form,
    )
    conversation = Conversation(
        messages,
        kwargs=parse_thinking(body, strength),
        is_continued=is_continued(messages),
        tools=parse_tools(TOOLS.of(body), TOOL_CHOICE.of(body)),
        reasoning=REASONING_FORMAT.of(body),
    )
    return ChatRequest(generation, conversation)


def system_messages(system: object) -> list[TemplateMessage]:
    if system is None or system == "" or system == []:
        return []
    if isinstance(system, str):
        return [message("system", system)]
    blocks = [text_block(b, f"system[{i}]") for i, b in enumerate(a_list(system, "system"))]
    return [message("system", "\n".join(blocks))]


def text_block(block: object, path: str) -> str:
    """The text of a block that may be nothing else."""
    found = mapping(block, path)
    if found.get("type") != "text":
        raise unsupported(path, found.get("type"), "'text' here")
    return a_text(found, "text", path)


def template_messages(item: Mapping[str, object], path: str) -> list[TemplateMessage]:
    """The template's messages for one of Anthropic's: results of tools are messages of their
    own."""
    role, content = item.get("role"), item.get("content")
    if role not in ("user", "assistant"):
        raise RequestError(
            f"`{path}.role` is {str(role)[:60]!r}; use user or assistant, and the field `system`.",
            param=f"{path}.role",
        )
    if isinstance(content, str):
        return [message(role, content)]
    blocks = a_list(content, f"{path}.content")
    return (user_messages if role == "user" else assistant_messages)(blocks, f"{path}.content")


def user_messages(blocks: list[object], path: str) -> list[TemplateMessage]:
    results: list[TemplateMessage] = []
    texts: list[str] = []
    for i, block in enumerate(blocks):
        where = f"{path}[{i}]"
        found = mapping(block, where)
        if found.get("type") == "tool_result":
            results.append(result_message(found, where))
        elif found.get("type") == "text":
            texts.append(a_text(found, "text", where))
        else:
            raise unsupported(where, found.get("type"), "'text' and 'tool_result'")
    if texts or not results:
        results.append(message("user", "\n".join(texts)))
    return results


def result_message(block: Mapping[str, object], path: str) -> TemplateMessage:
    content = block.get("content", "")
    if not isinstance(content, str):
        parts = a_list(content, f"{path}.content")
        content = "\n".join(text_block(p, f"{path}.content[{i}]") for i, p in enumerate(parts))
    if block.get("is_error") is True:  # a chat has no field for it, and the model must know
        content = f"Error: {content}"
    return tool_result(a_text(block, "tool_use_id", path), content)


def assistant_messages(blocks: list[object], path: str) -> list[TemplateMessage]:
    texts: list[str] = []
    thoughts: list[str] = []
    calls: list[Call] = []
    for i, block in enumerate(blocks):
        where = f"{path}[{i}]"
        found = mapping(block, where)
        kind = found.get("type")
        if kind == "text":
            texts.append(a_text(found, "text", where))
        elif kind == "thinking":
            thoughts.append(a_text(found, "thinking", where))
        elif kind == "tool_use":
            calls.append(tool_use(found, where))
        else:
            raise unsupported(where, kind, "'text', 'thinking' and 'tool_use'")
    return [assistant_message("\n".join(texts), "\n".join(thoughts), calls)]


def tool_use(block: Mapping[str, object], path: str) -> Call:
    arguments = orjson.dumps(mapping(block.get("input", {}), f"{path}.input")).decode()
    return Call(a_text(block, "id", path), a_text(block, "name", path), arguments)


def parse_tools(tools: list[object] | None, choice: Mapping[str, object] | None) -> ToolRequest:
    paths = [f"tools[{i}]" for i in range(len(tools or ()))]
    functions = [a_tool(tool, path) for tool, path in zip(tools or (), paths, strict=True)]
    found = make_tools(functions, paths, "input_schema")
    if choice is None:
        return choose_tools(found, "auto", is_parallel=True)
    alone = choice.get("disable_parallel_tool_use", False)
    chosen = parse_choice(choice)
    is_alone = boolean(alone, "tool_choice.disable_parallel_tool_use")
    return choose_tools(found, chosen, is_parallel=not is_alone)


def parse_choice(choice: Mapping[str, object]) -> ToolChoice:
    kind = choice.get("type")
    if kind == "tool":
        return NamedFunction(a_text(choice, "name", "tool_choice"))
    if isinstance(kind, str) and kind in CHOICES:
        return CHOICES[kind]
    raise unsupported("tool_choice", kind, "'auto', 'any', 'tool' and 'none'")


CHOICES: dict[str, ToolChoice] = {"auto": "auto", "any": "required", "none": "none"}


def a_tool(tool: object, path: str) -> Mapping[str, object]:
    """The function that a tool describes."""
    found = mapping(tool, path)
    if found.get("type", "custom") not in ("custom", None):
        raise unsupported(path, found["type"], "'custom' tools, which the client runs")
    schema = mapping(found.get("input_schema", {}), f"{path}.input_schema")
    function: dict[str, object] = {"name": a_text(found, "name", path), "parameters": schema}
    if found.get("description") is not None:
        function["description"] = a_text(found, "description", path)
    usual = ("name", "description", "parameters", "strict")  # the order models have seen most
    return {key: function[key] for key in usual if key in function}


def parse_thinking(body: Body, strength: str | None) -> dict[str, object]:
    """Returns the template's variables; `strength` is the effort of `output_config`. An
    `enable_thinking` among `chat_template_kwargs` overrides `thinking`. A budget of tokens that
    the whole answer could not exceed is no limit; a smaller one is refused."""
    thinking = THINKING.of(body)
    kind = None if thinking is None else thinking.get("type")
    if thinking is not None and kind not in ("enabled", "disabled", "adaptive"):
        raise unsupported("thinking", kind, "'enabled', 'adaptive' and 'disabled'")
    budget = None if thinking is None else thinking.get("budget_tokens")
    if kind == "enabled" and budget is not None:
        name, max_tokens = "thinking.budget_tokens", MAX_TOKENS.of(body)
        if integer(1, MAX_INT)(budget, name) < max_tokens:
            raise RequestError(
                f"`{name}` ({budget}) is less than `max_tokens` ({max_tokens}), and this server "
                'cannot hold thoughts to a length of their own; send {"type": "adaptive"}, or a '
                "budget of `max_tokens`.",
                param=name,
            )
    kwargs = dict(TEMPLATE_KWARGS.of(body))
    if kind in ("enabled", "disabled"):
        kwargs.setdefault("enable_thinking", kind == "enabled")
    return thinking_kwargs(kwargs, None, strength, "output_config.effort")


def parse_output_config(
    config: Mapping[str, object] | None,
) -> tuple[str | None, AnswerFormat | None]:
    """`output_config`: an effort, and a schema that the answer follows."""
    strength, form = None, None
    for name, value in (config or {}).items():
        path = f"output_config.{name:.100}"
        if value is None:
            continue
        if name == "effort":
            strength = effort(value, path)
        elif name == "format":
            asked = mapping(value, path)
            if asked.get("type") != "json_schema":
                raise unsupported(path, asked.get("type"), "'json_schema'")
            form = named_schema({"schema": asked.get("schema")}, path, path)
        else:
            raise RequestError(f"`{path}` is not supported; leave it out.", param=path)
    return strength, form
