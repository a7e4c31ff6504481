"""Bodies of Anthropic's /v1/messages, once checked."""

from __future__ import annotations

from collections.abc import Mapping

from api.requests.answer_format import AnswerFormat, named_schema
from api.requests.content_blocks import BlockReader
from api.requests.fields import (
    MAX_INT,
    Body,
    Field,
    a_list,
    a_text,
    boolean,
    mapping,
    stop_strings,
    token_limit,
    type_of,
    unsupported,
    whole,
)
from api.requests.generation import COMMON, parse_common
from api.requests.openai import messages_list
from api.requests.prompts.conversation import (
    REASONING_FORMAT,
    TEMPLATE_KWARGS,
    ChatRequest,
    Conversation,
    effort,
    is_continued,
    thinking_kwargs,
)
from api.requests.prompts.message_forms import without_empty_end
from api.requests.verdicts import MESSAGES as RULES
from api.requests.verdicts import OUTPUT_CONFIG as OUTPUT_CONFIG_RULES
from api.requests.verdicts import THINKING as THINKING_RULES
from api.requests.verdicts import check_fields
from api.tools.tool_request import (
    NamedFunction,
    Offer,
    ToolChoice,
    ToolRequest,
    choose_tools,
    make_tools,
)
from dllama.errors import RequestError

DEFAULT_MAX_TOKENS = 4096  # as llama-server has it; Anthropic's clients always say


def anything(value: object, name: str) -> object:
    return value


MESSAGES = Field(("messages",), messages_list, None)
MAX_TOKENS = Field(("max_tokens", "n_predict"), token_limit, DEFAULT_MAX_TOKENS)
SYSTEM = Field(("system",), anything, None)
STOP_SEQUENCES: Field[tuple[str, ...], tuple[str, ...]] = Field(
    ("stop_sequences",), stop_strings, ()
)
TOOLS = Field(("tools",), a_list, None)
TOOL_CHOICE = Field(("tool_choice",), mapping, None)
THINKING = Field(("thinking",), mapping, None)
OUTPUT_CONFIG = Field(("output_config",), mapping, None)
OUTPUT_FORMAT = Field(("output_format",), mapping, None)  # the older name of output_config.format
FIELDS: tuple[Field[object, object], ...] = (
    MESSAGES, MAX_TOKENS, SYSTEM, STOP_SEQUENCES, TOOLS, TOOL_CHOICE, THINKING, OUTPUT_CONFIG,
    OUTPUT_FORMAT, TEMPLATE_KWARGS, REASONING_FORMAT, *COMMON,
)  # fmt: skip
TYPE = Field(("type",), anything, None)
EFFORT = Field(("effort",), effort, None)
FORMAT = Field(("format",), mapping, None)


def parse_messages(body: Body, route: str) -> ChatRequest:
    """The chat that a body asks for. RequestError names the field at fault."""
    left_out = list(check_fields(body, FIELDS, route, RULES))
    found = MESSAGES.of(body)
    if found is None:
        raise _no_messages()
    reader = BlockReader()
    messages = reader.system(SYSTEM.of(body))
    for i, item in enumerate(found):
        messages += reader.messages(item, f"messages[{i}]")
    messages = without_empty_end(messages)
    if not messages:
        raise _no_messages()
    config = OUTPUT_CONFIG.of(body) or {}
    left_out += check_fields(
        config, (EFFORT, FORMAT), "`output_config`", OUTPUT_CONFIG_RULES, "output_config."
    )
    left_out += thinking_left_out(body)
    tools = parse_tools(TOOLS.of(body), TOOL_CHOICE.of(body))
    generation = parse_common(
        body,
        max_tokens=MAX_TOKENS.of(body),
        stops=STOP_SEQUENCES.of(body),
        form=parse_format(body, config),
        left_out=(*left_out, *reader.left_out, *tools.left_out),
    )
    conversation = Conversation(
        messages,
        kwargs=parse_thinking(body, EFFORT.of(config)),
        is_continued=is_continued(messages),
        tools=tools,
        reasoning=REASONING_FORMAT.of(body),
    )
    return ChatRequest(generation, conversation)


def _no_messages() -> RequestError:
    return RequestError(
        '`messages` is missing or empty; send {"role": "user", "content": "Hello"} at least.',
        param="messages",
    )


def parse_tools(tools: list[object] | None, choice: Mapping[str, object] | None) -> ToolRequest:
    """Returns the tools of a body. Those that Anthropic runs, or has trained its models for, are
    left out."""
    functions: list[Mapping[str, object]] = []
    paths: list[str] = []
    left_out: list[str] = []
    for i, tool in enumerate(tools or ()):
        path = f"tools[{i}]"
        kind = type_of(mapping(tool, path))
        if kind in (None, "custom"):
            functions.append(a_tool(tool, path))
            paths.append(path)
        else:
            left_out.append(f"{path}:{kind}")
    offer = make_tools(functions, paths, "input_schema", left_out)
    return chosen(offer, choice)


def chosen(offer: Offer, choice: Mapping[str, object] | None) -> ToolRequest:
    if not choice:
        return choose_tools(offer, "auto", is_parallel=True)
    alone = choice.get("disable_parallel_tool_use")
    is_alone = alone is not None and boolean(alone, "tool_choice.disable_parallel_tool_use")
    return choose_tools(offer, parse_choice(choice), is_parallel=not is_alone)


def parse_choice(choice: Mapping[str, object]) -> ToolChoice:
    kind = type_of(choice)
    if kind == "tool":
        return NamedFunction(a_text(choice, "name", "tool_choice"))
    if isinstance(kind, str) and kind in CHOICES:
        return CHOICES[kind]
    raise unsupported("tool_choice", kind, "'auto', 'any', 'tool' and 'none'")


CHOICES: dict[str, ToolChoice] = {"auto": "auto", "any": "required", "none": "none"}


def a_tool(tool: object, path: str) -> Mapping[str, object]:
    """The function that a tool describes."""
    found = mapping(tool, path)
    schema = found.get("input_schema")
    function: dict[str, object] = {
        "name": a_text(found, "name", path),
        "parameters": {} if schema is None else mapping(schema, f"{path}.input_schema"),
    }
    if found.get("description") is not None:
        function["description"] = a_text(found, "description", path)
    if found.get("strict") is not None:
        function["strict"] = boolean(found["strict"], f"{path}.strict")
    usual = ("name", "description", "parameters", "strict")  # the order models have seen most
    return {key: function[key] for key in usual if key in function}


def thinking_left_out(body: Body) -> tuple[str, ...]:
    """Returns the names of what `thinking` has and the answer does not follow. A budget of tokens
    that the whole answer cannot exceed is no limit."""
    thinking = dict(THINKING.of(body) or {})
    limit, budget = MAX_TOKENS.of(body), whole(thinking.get("budget_tokens"))
    if budget is not None and budget >= (MAX_INT if limit is None else limit):
        del thinking["budget_tokens"]
    return check_fields(thinking, (TYPE,), "`thinking`", THINKING_RULES, "thinking.")


def parse_thinking(body: Body, strength: str | None) -> dict[str, object]:
    """Returns the template's variables; `strength` is the effort of `output_config`. An
    `enable_thinking` among `chat_template_kwargs` overrides `thinking`."""
    kind = TYPE.of(THINKING.of(body) or {})
    kwargs = dict(TEMPLATE_KWARGS.of(body))
    if kind in ("enabled", "disabled"):
        kwargs.setdefault("enable_thinking", kind == "enabled")
    return thinking_kwargs(kwargs, None, strength, "output_config.effort")


def parse_format(body: Body, config: Mapping[str, object]) -> AnswerFormat | None:
    """Returns the form of `output_config.format`: a schema that the answer follows."""
    asked, path = FORMAT.of(config), "output_config.format"
    if not asked:
        asked, path = OUTPUT_FORMAT.of(body), "output_format"
    if not asked:
        return None
    if asked.get("type") != "json_schema":
        raise unsupported(path, asked.get("type"), "'json_schema'")
    return named_schema({"schema": asked.get("schema")}, path, path)
