"""Bodies of OpenAI's /v1/responses, once checked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from api.answers.events import Message
from api.requests.answer_format import AnswerFormat, named_schema, response_format
from api.requests.fields import (
    Body,
    Field,
    a_list,
    boolean,
    integer,
    mapping,
    string,
    token_limit,
    wrong,
)
from api.requests.generation import COMMON, check_stream_options, parse_common
from api.requests.prompts.conversation import (
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
)
from api.requests.response_items import ItemReader
from api.requests.tool_forms import function_of, tool_choice, tool_kind
from api.requests.verdicts import REASONING as REASONING_RULES
from api.requests.verdicts import RESPONSES as RULES
from api.requests.verdicts import TEXT as TEXT_RULES
from api.requests.verdicts import check_fields
from api.tools.tool_request import Offer, ToolChoice, choose_tools, make_tools
from dllama.errors import RequestError


def input_value(value: object, name: str) -> object:
    if not isinstance(value, str | list):
        raise wrong(name, "a string or a list of items", value)
    return value


def includes(value: object, name: str) -> list[object]:
    """Reads `include`. Hosted tools, images and encrypted reasoning do not occur, so that more of
    them adds nothing; probabilities would."""
    found = a_list(value, name)
    if "message.output_text.logprobs" in found:
        raise RequestError(
            f"`{name}` asks for message.output_text.logprobs, which responses do not tell here; "
            "leave it out, or use /v1/chat/completions with `logprobs`.",
            param=name,
        )
    return found


def tools(value: object, name: str) -> Offer:
    """A list of functions; other tools are left out."""
    functions: list[Mapping[str, object]] = []
    paths: list[str] = []
    left_out: list[str] = []
    for i, tool in enumerate(a_list(value, name)):
        path = f"{name}[{i}]"
        kind = tool_kind(tool, path)
        if kind == "function":
            found = function_of(tool, path)
            names = ("name", "description", "parameters", "strict")
            functions.append({n: found[n] for n in names if found.get(n) is not None})
            paths.append(path)
        else:
            left_out.append(f"{path}:{kind}")
    return make_tools(functions, paths, left_out=left_out)


INPUT: Field[object, object] = Field(("input",), input_value, [])
INSTRUCTIONS = Field(("instructions",), string, None)
MAX_OUTPUT_TOKENS = Field(
    ("max_output_tokens", "n_predict", "max_completion_tokens", "max_tokens"), token_limit, None
)
PREVIOUS = Field(("previous_response_id",), string, None)
STORE = Field(("store",), boolean, True)
STREAM_OPTIONS: Field[dict[str, object], dict[str, object]] = Field(
    ("stream_options",), mapping, {}
)
TOOLS: Field[Offer, Offer] = Field(("tools",), tools, Offer())
PARALLEL = Field(("parallel_tool_calls",), boolean, True)
TEXT: Field[dict[str, object], dict[str, object]] = Field(("text",), mapping, {})
REASONING: Field[dict[str, object], dict[str, object]] = Field(("reasoning",), mapping, {})
INCLUDE = Field(("include",), includes, None)
TOP_LOGPROBS = Field(("top_logprobs",), integer(0, 0), 0)


TOOL_CHOICE: Field[ToolChoice, ToolChoice] = Field(("tool_choice",), tool_choice, "auto")
FIELDS: tuple[Field[object, object], ...] = (
    INPUT, INSTRUCTIONS, MAX_OUTPUT_TOKENS, PREVIOUS, STORE, STREAM_OPTIONS, TOOLS, TOOL_CHOICE,
    PARALLEL, TEXT, REASONING, INCLUDE, TOP_LOGPROBS, TEMPLATE_KWARGS, REASONING_FORMAT, *COMMON,
)  # fmt: skip
EFFORT = Field(("effort",), effort, None)
FORMAT = Field(("format",), mapping, None)


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
    left_out = list(check_fields(body, FIELDS, route, RULES))
    reader = ItemReader()
    said = reader.messages(INPUT.of(body))
    if not said:
        raise RequestError("`input` is missing or empty; send a string or items.", param="input")
    messages = [*earlier, *said]
    instructions = INSTRUCTIONS.of(body)
    rendered = [message("system", instructions), *messages] if instructions else messages
    left_out += parts_left_out(body)
    chosen = choose_tools(TOOLS.of(body), TOOL_CHOICE.of(body), is_parallel=PARALLEL.of(body))
    strength = EFFORT.of(REASONING.of(body))
    conversation = Conversation(
        rendered,
        kwargs=thinking_kwargs(TEMPLATE_KWARGS.of(body), None, strength, "reasoning.effort"),
        is_continued=is_continued(rendered),
        tools=chosen,
        reasoning=REASONING_FORMAT.of(body),
    )
    generation = parse_common(
        body,
        max_tokens=MAX_OUTPUT_TOKENS.of(body),
        form=parse_format(TEXT.of(body)),
        left_out=(*left_out, *reader.left_out, *chosen.left_out),
    )
    is_stored = STORE.of(body)
    chat = ChatRequest(generation, conversation)
    return ResponsesRequest(chat, messages, is_stored, echo_of(body, is_stored))


def parts_left_out(body: Body) -> tuple[str, ...]:
    """Returns the names within the objects of a body that the answer does not follow. Raises
    RequestError for those that are refused."""
    TOP_LOGPROBS.of(body)
    INCLUDE.of(body)
    return (
        *check_stream_options(STREAM_OPTIONS.of(body)),
        *check_fields(REASONING.of(body), (EFFORT,), "`reasoning`", REASONING_RULES, "reasoning."),
        *check_fields(TEXT.of(body), (FORMAT,), "`text`", TEXT_RULES, "text."),
    )


def parse_format(text: Mapping[str, object]) -> AnswerFormat | None:
    """Returns the form that `text` asks for."""
    asked, path = FORMAT.of(text), "text.format"
    if not asked:
        return None
    if asked.get("type") == "json_schema":
        return named_schema(asked, path, path)
    return response_format(asked, path)


def with_answer(
    messages: list[TemplateMessage], said: Message, *, is_continued: bool
) -> list[TemplateMessage]:
    """Returns a conversation with its answer: a message of its own, or the rest of the last one
    where that `is_continued`."""
    told = said_messages(said)
    begun = messages[-1] if is_continued and messages else {}
    if not told or not isinstance(begun.get("content"), str):
        return messages + told
    [rest] = told
    whole = {**begun, **rest, "content": f"{begun['content']}{rest['content'] or ''}"}
    thoughts = [m["reasoning_content"] for m in (begun, rest) if m.get("reasoning_content")]
    if thoughts:
        whole["reasoning_content"] = "".join(map(str, thoughts))
    return [*messages[:-1], whole]


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
        "reasoning": {"effort": None, "summary": None, **REASONING.of(body)},
        "text": {"format": {"type": "text"}, **TEXT.of(body)},
        "tool_choice": body.get("tool_choice") or "auto",
        "tools": body.get("tools") or [],
        "truncation": "disabled",
        "background": False,
        "store": is_stored,
    }
