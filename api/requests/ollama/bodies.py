"""Bodies of Ollama's /api/chat and /api/generate, once checked."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from math import inf

import orjson

from api.answers.events import Call
from api.requests.answer_format import FLAG_FORMS, AnswerFormat, response_format, schema_format
from api.requests.fields import (
    Body,
    Field,
    a_list,
    a_text,
    boolean,
    integer,
    mapping,
    string,
    wrong,
)
from api.requests.generation import MODEL, GenerationRequest, parse_common
from api.requests.ollama.options import STOP, common_body, max_tokens
from api.requests.openai import messages_list, token_ids, tools
from api.requests.prompts.conversation import (
    Conversation,
    TemplateMessage,
    assistant_message,
    is_continued,
    message,
    tool_result,
)
from api.requests.sampling import CHAT_LOGPROBS, MAX_TOP_LOGPROBS, LogprobStyle
from api.tools.tool_request import Offer, choose_tools
from dllama.errors import RequestError

_DURATION = re.compile(r"[-+]?(\d+|((\d+\.?\d*|\.\d+)(ns|us|µs|ms|s|m|h))+)")
_PART = re.compile(r"(\d+\.?\d*|\.\d+)(ns|us|µs|ms|s|m|h)?")
_UNITS_S = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_STRENGTHS = ("low", "medium", "high", "max")

Think = bool | str | None


def think(value: object, name: str) -> Think:
    """Reads a boolean, or how much the model is to think."""
    if isinstance(value, bool) or value in _STRENGTHS:
        return value if isinstance(value, bool) else str(value)
    raise wrong(name, f"true, false or one of {', '.join(_STRENGTHS)}", value)


def keep_alive(value: object, name: str) -> float:
    """Reads how many seconds a model stays loaded without work, a number or one of Go's durations:
    0 unloads it, and less than 0 is for ever (infinite)."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return inf if value < 0 else float(value)
    if not (isinstance(value, str) and _DURATION.fullmatch(value)):
        raise wrong(name, 'a number of seconds, or a duration like "5m"', value)
    parts = _PART.findall(value)
    seconds = sum(float(number) * _UNITS_S[unit or "s"] for number, unit in parts)
    return inf if value.startswith("-") and seconds else seconds


def answer_format(value: object, name: str) -> AnswerFormat | None:
    """Reads "json" or a JSON schema; an empty text is no form."""
    if value == "":
        return None
    if value == "json":
        return response_format({"type": "json_object"}, name)
    if not isinstance(value, dict):
        raise wrong(name, '"json" or a JSON schema', value)
    return schema_format(value, name, name)


def ollama_tools(value: object, name: str) -> Offer:
    """Reads functions as OpenAI has them, of which the type may be missing."""
    return tools(
        [{"type": "function", **mapping(tool, name)} for tool in a_list(value, name)], name
    )


def no_images(value: object, name: str) -> None:
    if a_list(value, name):
        raise RequestError(
            f"`{name}` holds images, and no model that this server runs can see; send text alone.",
            param=name,
        )


STREAM = Field(("stream",), boolean, True)
FORMAT = Field(("format",), answer_format, None)
OPTIONS: Field[dict[str, object], dict[str, object]] = Field(("options",), mapping, {})
KEEP_ALIVE: Field[float | None, float | None] = Field(("keep_alive",), keep_alive, None)
THINK = Field(("think",), think, None)
SHIFT = Field(("shift",), boolean, None)
TOP_LOGPROBS = Field(("top_logprobs",), integer(0, MAX_TOP_LOGPROBS), 0)
MESSAGES = Field(("messages",), messages_list, None)
TOOLS: Field[Offer, Offer] = Field(("tools",), ollama_tools, Offer())
PROMPT = Field(("prompt",), string, "")
SUFFIX = Field(("suffix",), string, "")
SYSTEM = Field(("system",), string, "")
TEMPLATE = Field(("template",), string, "")
RAW = Field(("raw",), boolean, False)
CONTEXT: Field[list[int], list[int]] = Field(("context",), token_ids, [])
IMAGES = Field(("images",), no_images, None)


@dataclass(frozen=True, slots=True)
class OllamaChat:
    """`conversation` None asks for no answer, but that the model is loaded or (`keep_s` 0)
    unloaded. `keep_s` is how long it stays without work afterwards, None as the server has it."""

    generation: GenerationRequest
    conversation: Conversation | None
    think: Think
    keep_s: float | None


@dataclass(frozen=True, slots=True)
class OllamaPrompt:
    """What /api/generate continues: a chat of `conversation`, after the tokens of `context`; with
    `is_raw` the `prompt` as it is, with `template` its text, with `suffix` the hole before it.
    An empty prompt without a suffix asks for no answer. `keep_s` as that of OllamaChat."""

    generation: GenerationRequest
    prompt: str
    conversation: Conversation
    context: list[int]
    system: str
    template: str
    suffix: str
    is_raw: bool
    think: Think
    keep_s: float | None

    @property
    def is_empty(self) -> bool:
        return not self.prompt and not self.suffix


def parse_generation(
    body: Body, assumed: Body, left_out: tuple[str, ...] = ()
) -> GenerationRequest:
    """The fields that both routes have; `assumed` are those that every generating route has, where
    the body says nothing. RequestError names the field at fault."""
    options = OPTIONS.of(body)
    if FORMAT.of(body) is not None:
        assumed = {name: value for name, value in assumed.items() if name not in FLAG_FORMS}
    common = {**assumed, **common_body(options)}
    common |= {"model": MODEL.of(body) or None, "stream": STREAM.of(body)}
    shift = SHIFT.of(body)
    if shift is not None:
        common["context_shift"] = shift
    n_top = TOP_LOGPROBS.of(body)
    asked = (n_top, LogprobStyle.CHAT) if CHAT_LOGPROBS.of(body) else None
    return parse_common(
        common,
        max_tokens=max_tokens(options),
        stops=STOP.of(options),
        asked=asked,
        form=FORMAT.of(body),
        left_out=left_out,
    )


def parse_ollama_chat(body: Body, assumed: Body) -> OllamaChat:
    """A body of /api/chat; `assumed` as in parse_generation. RequestError names the field
    at fault."""
    messages = template_messages(MESSAGES.of(body) or [])
    offered = choose_tools(TOOLS.of(body), "auto", is_parallel=True)
    conversation = None
    if messages:
        continued = is_continued(messages)
        conversation = Conversation(messages, is_continued=continued, tools=offered)
    return OllamaChat(
        parse_generation(body, assumed, offered.left_out),
        conversation,
        THINK.of(body),
        KEEP_ALIVE.of(body),
    )


def parse_ollama_prompt(body: Body, assumed: Body) -> OllamaPrompt:
    """A body of /api/generate; `assumed` as in parse_generation. RequestError names the field
    at fault."""
    IMAGES.of(body)
    prompt, system = PROMPT.of(body), SYSTEM.of(body)
    messages = [message("system", system)] if system else []
    asked = OllamaPrompt(
        generation=parse_generation(body, assumed),
        prompt=prompt,
        conversation=Conversation([*messages, message("user", prompt)]),
        context=CONTEXT.of(body),
        system=system,
        template=TEMPLATE.of(body),
        suffix=SUFFIX.of(body),
        is_raw=RAW.of(body),
        think=THINK.of(body),
        keep_s=KEEP_ALIVE.of(body),
    )
    if asked.is_raw:
        _refuse_beside(asked, "raw", "template", "system", "context", "suffix")
    elif asked.suffix and not asked.template:
        _refuse_beside(asked, "suffix", "system", "context")
    return asked


def _refuse_beside(asked: OllamaPrompt, name: str, *others: str) -> None:
    """Raises RequestError if a field is set that the field `name` leaves without a place in the
    prompt."""
    for other in others:
        if getattr(asked, other):
            raise RequestError(
                f"`{other}` has no place in a prompt with `{name}`; send one of them.", param=other
            )


def template_messages(items: list[TemplateMessage]) -> list[TemplateMessage]:
    """Returns Ollama's messages as templates read them: calls get ids, and results those of the
    calls that they answer. A last message of the assistant that holds nothing is left out."""
    told: list[TemplateMessage] = []
    waiting: list[Call] = []  # for their results
    n_calls = 0
    for i, item in enumerate(items):
        path = f"messages[{i}]"
        if item.get("images") is not None:
            no_images(item["images"], f"{path}.images")
        content = item.get("content")
        content = "" if content is None else content
        if item.get("role") == "assistant":
            calls = _calls(item.get("tool_calls"), f"{path}.tool_calls", n_calls)
            n_calls += len(calls)
            waiting += calls
            said = assistant_message("", _thoughts(item, path), calls)
            told.append({**said, "content": content or (None if calls else "")})
        elif item.get("role") == "tool":
            told.append(_result(item, content, waiting, path))
        else:
            told.append(message(item.get("role"), content))
    if told and told[-1] == message("assistant", ""):
        told.pop()
    return told


def _thoughts(item: Mapping[str, object], path: str) -> str:
    return a_text(item, "thinking", path) if item.get("thinking") is not None else ""


def _calls(value: object, path: str, n_before: int) -> list[Call]:
    if value is None:
        return []
    calls = []
    for i, item in enumerate(a_list(value, path)):
        where = f"{path}[{i}]"
        call = mapping(item, where)
        function = mapping(call.get("function"), f"{where}.function")
        name = a_text(function, "name", f"{where}.function")
        given = function.get("arguments")
        arguments = mapping({} if given is None else given, f"{where}.function.arguments")
        call_id = call.get("id") or f"call_{n_before + i}"
        calls.append(Call(string(call_id, f"{where}.id"), name, orjson.dumps(arguments).decode()))
    return calls


def _result(
    item: Mapping[str, object], content: object, waiting: list[Call], path: str
) -> TemplateMessage:
    """Returns a tool's result. Without an id it answers the first call of its tool's name that has
    no result yet, or the first call of all."""
    name, call_id = item.get("tool_name") or item.get("name"), item.get("tool_call_id")
    named = [call for call in waiting if call.id == call_id or call.name == name]
    answered = next(iter(named or waiting), None)
    if answered is not None:
        waiting.remove(answered)
    if call_id is None:
        call_id = "call_0" if answered is None else answered.id
    if name is None and answered is not None:
        name = answered.name
    told = tool_result(string(call_id, f"{path}.tool_call_id"), "")
    told["content"] = content
    return told if name is None else {**told, "name": string(name, f"{path}.tool_name")}
