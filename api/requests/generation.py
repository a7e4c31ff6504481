"""Typed requests: what the bodies of the generating routes say, once checked.

Knows fields and ranges, not models: whatever needs a vocabulary is checked later (prompting.py).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from api.answers.reasoning import ReasoningFormat
from api.replies.logprobs import LogprobStyle
from api.requests.answer_format import SHAPE, Shape, parse_shape
from api.requests.drafting import DRAFTING, Drafting, parse_drafting
from api.requests.engine_options import KEEPING, Keeping, parse_keeping
from api.requests.fields import (
    MAX_INT,
    MAX_SEED,
    Bias,
    Body,
    Field,
    boolean,
    check_fields,
    integer,
    logit_bias,
    mapping,
    stop_strings,
    string,
    wrong,
)
from api.requests.sampling import (
    BREAKERS,
    CHAT_LOGPROBS,
    SAMPLING_FIELDS,
    TEXT_LOGPROBS,
    TOP_LOGPROBS,
    Asked,
    sampling_of_body,
    style_of,
    told_of_chat,
    told_of_text,
)
from api.requests.thinking import REASONING_FORMAT, THINKING, parse_kwargs
from api.tools.tool_request import TOOL_FIELDS, ToolRequest, parse_tools
from dllama.errors import RequestError

MAX_N = 16

Prompt = str | list[int]


def messages_list(value: object, name: str) -> list[dict[str, object]]:
    """A list of objects; what the objects must hold is dllama.chat's to say."""
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise wrong(name, 'a list of messages like {"role": "user", "content": "Hello"}', value)
    return value


def token_ids(value: object, name: str) -> list[int]:
    if not isinstance(value, list) or not all(type(item) is int for item in value):
        raise wrong(name, "a list of token ids", value)
    return value


def prompts(value: object, name: str) -> list[Prompt]:
    """One prompt or a list of them, each a string or a list of token ids."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, list) and value:
        if all(type(item) is int for item in value):
            return [value]
        found: list[Prompt] = []
        for i, item in enumerate(value):
            found.append(item if isinstance(item, str) else token_ids(item, f"{name}[{i}]"))
        return found
    raise wrong(name, "a string, a list of strings, a list of token ids or a list of those", value)


MODEL = Field(("model",), string, None)
STREAM = Field(("stream",), boolean, False)
STREAM_OPTIONS: Field[dict[str, object], dict[str, object]] = Field(
    ("stream_options",), mapping, {}
)
INCLUDE_USAGE = Field(("include_usage",), boolean, False)
INCLUDE_OBFUSCATION = Field(("include_obfuscation",), boolean, False)  # pads OpenAI's deltas
MAX_TOKENS = Field(("max_tokens", "max_completion_tokens"), integer(1, MAX_INT), None)
N = Field(("n",), integer(1, MAX_N), 1)
BEST_OF = Field(("best_of",), integer(1, MAX_N), None)
STOP: Field[tuple[str, ...], tuple[str, ...]] = Field(("stop",), stop_strings, ())
SEED = Field(("seed",), integer(-1, MAX_SEED), -1)
LOGIT_BIAS: Field[Bias, Bias] = Field(("logit_bias",), logit_bias, ())
IGNORE_EOS = Field(("ignore_eos",), boolean, False)
RETURN_PROGRESS = Field(("return_progress",), boolean, False)
TIMINGS_PER_TOKEN = Field(("timings_per_token",), boolean, False)
MESSAGES = Field(("messages",), messages_list, None)
ADD_GENERATION_PROMPT = Field(("add_generation_prompt",), boolean, None)
CONTINUE_FINAL_MESSAGE = Field(("continue_final_message",), boolean, None)
PROMPT = Field(("prompt",), prompts, None)

GENERATION: tuple[Field[object, object], ...] = (
    MODEL, STREAM, STREAM_OPTIONS, MAX_TOKENS, N, STOP, SEED, LOGIT_BIAS, IGNORE_EOS,
    RETURN_PROGRESS, TIMINGS_PER_TOKEN,
    *SAMPLING_FIELDS, *SHAPE, *KEEPING, *DRAFTING,
)  # fmt: skip
TEMPLATE: tuple[Field[object, object], ...] = (
    MESSAGES, ADD_GENERATION_PROMPT, CONTINUE_FINAL_MESSAGE, *THINKING, *TOOL_FIELDS,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class GenerationRequest:
    """What chat and text completions share. `seed` None: another for every request;
    `sampling` holds the fields of SamplingParams that the request sets, `breakers` the texts that
    end a repetition for DRY; `logprobs` says how probabilities are told, None for none."""

    model: str | None
    stream: bool
    include_usage: bool
    max_tokens: int | None
    n: int
    stops: tuple[str, ...]
    seed: int | None
    bias: Bias
    ignore_eos: bool
    sampling: dict[str, Any]
    breakers: tuple[str, ...] = ()
    logprobs: LogprobStyle | None = None
    return_progress: bool = False
    timings_per_token: bool = False
    keeping: Keeping = field(default_factory=Keeping)
    drafting: Drafting = field(default_factory=Drafting)
    shape: Shape | None = None  # the form that the answer must have


@dataclass(frozen=True, slots=True)
class Conversation:
    """Messages to render. With `is_continued` the last, of the assistant, is to be gone on with."""

    messages: list[dict[str, object]]
    kwargs: dict[str, object] = field(default_factory=dict)
    add_generation_prompt: bool = True
    is_continued: bool = False
    tools: ToolRequest = field(default_factory=ToolRequest)
    reasoning: ReasoningFormat = ReasoningFormat.AUTO


def parse_generation(body: Body, asked: Asked | None = None) -> GenerationRequest:
    """The shared fields of a body whose field names have been checked; RequestError."""
    options = STREAM_OPTIONS.of(body)
    check_fields(options, (INCLUDE_USAGE, INCLUDE_OBFUSCATION), "`stream_options`")
    INCLUDE_OBFUSCATION.of(options)
    seed = SEED.of(body)
    sampling = sampling_of_body(body, asked)
    return GenerationRequest(
        model=MODEL.of(body),
        stream=STREAM.of(body),
        include_usage=INCLUDE_USAGE.of(options),
        max_tokens=MAX_TOKENS.of(body),
        n=N.of(body),
        stops=STOP.of(body),
        seed=None if seed == -1 else seed,
        bias=LOGIT_BIAS.of(body),
        ignore_eos=IGNORE_EOS.of(body),
        return_progress=RETURN_PROGRESS.of(body),
        timings_per_token=TIMINGS_PER_TOKEN.of(body),
        sampling=sampling,
        breakers=BREAKERS.of(body),
        logprobs=style_of(sampling, asked),
        keeping=parse_keeping(body),
        drafting=parse_drafting(body),
        shape=parse_shape(body),
    )


def parse_conversation(body: Body) -> Conversation:
    """The messages of a body, and how they are to be rendered; RequestError.

    A last message of the assistant is gone on with, unless the body says otherwise.
    """
    messages = MESSAGES.of(body)
    if not messages:
        raise RequestError(
            "`messages` is missing or empty; send at least one message, like "
            '{"role": "user", "content": "Hello"}.',
            param="messages",
        )
    add, continued = ADD_GENERATION_PROMPT.of(body), CONTINUE_FINAL_MESSAGE.of(body)
    ends_with_assistant = messages[-1].get("role") == "assistant"
    if continued is None:
        continued = ends_with_assistant and add is None
    if continued:
        check_continued(messages, add)
    return Conversation(
        messages,
        parse_kwargs(body),
        add is not False,
        continued,
        parse_tools(body),
        REASONING_FORMAT.of(body),
    )


def check_continued(messages: list[dict[str, object]], add: bool | None) -> None:
    """RequestError unless the last message can be gone on with."""
    last = messages[-1]
    if add:
        reason = "`add_generation_prompt` asks for a new message at the same time"
    elif last.get("role") != "assistant":
        reason = "it is not the assistant's"
    elif last.get("tool_calls"):
        reason = "it has tool calls"
    elif len(messages) > 1 and messages[-2].get("role") == "assistant":
        reason = "the one before it is the assistant's too"
    elif not last.get("content"):
        reason = "it has no content"
    else:
        return
    raise RequestError(
        f"The last message cannot be continued: {reason}. End with a user message, or with one "
        "assistant message that is the beginning of the answer.",
        param="messages",
    )


def parse_chat(body: Body, route: str) -> tuple[GenerationRequest, Conversation]:
    """A body of /v1/chat/completions; RequestError names the field at fault."""
    check_fields(body, (*GENERATION, *TEMPLATE, CHAT_LOGPROBS, TOP_LOGPROBS), route)
    return parse_generation(body, told_of_chat(body)), parse_conversation(body)


def parse_completion(body: Body, route: str) -> tuple[GenerationRequest, list[Prompt]]:
    """A body of /v1/completions; RequestError names the field at fault."""
    check_fields(body, (*GENERATION, PROMPT, BEST_OF, TEXT_LOGPROBS), route)
    request = parse_generation(body, told_of_text(body))
    best_of = BEST_OF.of(body)
    if best_of is not None and best_of != request.n:
        raise RequestError(
            f"`best_of` ({best_of}) other than `n` ({request.n}) is not supported by this server; "
            "leave it out.",
            param="best_of",
        )
    found = PROMPT.of(body)
    if found is None:
        raise RequestError(
            "`prompt` is missing; send a string, a list of strings or token ids.", param="prompt"
        )
    return request, found
