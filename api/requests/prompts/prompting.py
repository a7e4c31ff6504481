"""From a typed request to the tokens and the sampling parameters that an engine gets."""

from __future__ import annotations

import asyncio
import secrets
from dataclasses import dataclass, replace
from itertools import takewhile
from typing import Any

from api.answers.reasoning import without_thoughts
from api.errors import ApiError, prompt_too_long
from api.requests.engine_options import EngineOptions, may_shift
from api.requests.fields import MAX_SEED
from api.requests.generation import GenerationRequest
from api.requests.native import InfillParts, MixedPrompt
from api.requests.openai import Prompt
from api.requests.prompts.continuation import continued_prompt
from api.requests.prompts.conversation import Conversation
from api.served_model import ServedModel
from api.tools.history import fitting_ids, told_in_words
from dllama.chat.messages import check_messages
from dllama.errors import RequestError, TemplateError
from dllama.requests import SamplingParams
from dllama.tokenizer.dry_breakers import breaker_tokens

MAX_DRAWN_SEED = (
    1 << 32
)  # a seed is in the answer, and every JSON reader keeps such a number exactly
LONG_CHARS = 8192  # about 2 ms of rendering and encoding; more goes to a thread
MESSAGE_CHARS = 128  # rendering one message takes as long as encoding this many characters


def render(model: ServedModel, conversation: Conversation) -> str:
    """Returns the prompt of a conversation as text. Raises RequestError and TemplateError."""
    check_messages(conversation.messages)
    dialect, kwargs = model.tool_dialect, {**model.template_kwargs, **conversation.kwargs}
    template = model.chat_template
    messages = told_in_words(
        conversation.messages, conversation.tools, dialect, writes_calls=template.writes_calls
    )
    messages = fitting_ids(messages, dialect)
    tools = conversation.tools.raw if dialect.describes_tools else None
    if not conversation.is_continued:
        add = conversation.add_generation_prompt
        prompt = template.render(messages, tools, add, **kwargs)
        if model.think_tags is not None and kwargs.get("enable_thinking") is False:
            return without_thoughts(prompt, model.think_tags)
        return prompt
    return continued_prompt(template, messages, tools, kwargs, model.think_tags)


def effort_left_out(model: ServedModel, conversation: Conversation) -> tuple[str, ...]:
    """Returns the name of an effort that is asked for and that the chat template does not know."""
    is_lost = "reasoning_effort" in conversation.kwargs and not model.knows_effort
    return ("reasoning_effort",) if is_lost else ()


def encode(model: ServedModel, text: str) -> list[int]:
    """Returns the ids of a text that an answer is to follow, special tokens parsed."""
    return model.tokenizer.encode_prompt(text)


def encode_whole(model: ServedModel, text: str) -> list[int]:
    """Returns the ids of a text that is complete, special tokens parsed, between BOS and EOS if
    the model wants them."""
    return model.tokenizer.encode(text, add_special=True, parse_special=True)


def check_ids(model: ServedModel, ids: list[int], param: str) -> None:
    """Raises RequestError unless all `ids` are in the vocabulary."""
    size = model.tokenizer.vocab_size
    for token_id in ids:
        if not 0 <= token_id < size:
            raise RequestError(
                f"`{param}` has the token id {token_id}, but the vocabulary of {model.id} has "
                f"the ids 0 to {size - 1}.",
                param=param,
            )


def check_length(
    model: ServedModel, ids: list[int], param: str, options: EngineOptions | None = None
) -> None:
    """Raises if a prompt is empty, or leaves no room in a context that may not shift."""
    if not ids:
        raise RequestError(
            f"`{param}` is empty: it has no token to continue from; send some text.", param=param
        )
    if options is not None and may_shift(model, options):
        return
    if len(ids) >= model.max_seq_len:
        raise prompt_too_long(len(ids), model.max_seq_len)


@dataclass(frozen=True, slots=True)
class ChatPrompt:
    """A chat as text and in tokens, of which the first `n_system` are those of its system
    prompt (counted only where the context may shift)."""

    text: str
    ids: list[int]
    n_system: int = 0


async def chat_prompt(
    model: ServedModel, conversation: Conversation, options: EngineOptions | None = None
) -> ChatPrompt:
    """Returns the prompt of a chat. A long one is made in a thread."""
    options = options or EngineOptions()

    def make() -> ChatPrompt:
        text = render(model, conversation)
        ids = encode(model, text)
        counts = may_shift(model, options) and options.n_keep is None
        return ChatPrompt(text, ids, count_system(model, conversation, ids) if counts else 0)

    prompt = await asyncio.to_thread(make) if is_long(conversation) else make()
    check_length(model, prompt.ids, "messages", options)
    return prompt


def count_system(model: ServedModel, conversation: Conversation, ids: list[int]) -> int:
    """Returns the number of a prompt's first tokens that belong to the system prompt: those that a
    chat of the same system prompt begins with too."""
    first = conversation.messages[0]
    if first.get("role") not in ("system", "developer"):
        return 0
    other = replace(
        conversation, messages=[first, {"role": "user", "content": "?"}], is_continued=False
    )
    try:
        others = encode(model, render(model, other))
    except TemplateError:
        return 0
    pairs = zip(ids, others, strict=False)
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))


def is_long(conversation: Conversation) -> bool:
    """True if rendering and encoding would hold up the event loop; an estimate from the size."""
    n_chars = LONG_CHARS if conversation.tools.rendered else 0
    for message in conversation.messages:
        content = message.get("content")
        text = content if isinstance(content, str) else str(content)
        n_chars += len(text) + MESSAGE_CHARS
        if n_chars > LONG_CHARS:
            return True
    return False


async def text_ids(
    model: ServedModel,
    prompt: Prompt,
    param: str = "prompt",
    options: EngineOptions | None = None,
    *,
    is_answered: bool = True,
) -> list[int]:
    """Returns the tokens of a prompt of /v1/completions, or of a text to embed, which no answer
    follows. A long text is encoded in a thread."""
    encoder = encode if is_answered else encode_whole
    if isinstance(prompt, str):
        if len(prompt) > LONG_CHARS:
            ids = await asyncio.to_thread(encoder, model, prompt)
        else:
            ids = encoder(model, prompt)
    else:
        ids = prompt
        check_ids(model, ids, param)
    check_length(model, ids, param, options)
    return ids


async def mixed_ids(
    model: ServedModel,
    prompt: MixedPrompt,
    options: EngineOptions | None = None,
    param: str = "prompt",
    *,
    is_answered: bool = True,
) -> list[int]:
    """Returns the tokens of a prompt of /completion, or of a text to embed, which no answer
    follows; BOS is added only if it begins with text."""
    encoder = encode if is_answered else encode_whole
    parts = [prompt] if isinstance(prompt, str) else prompt

    def make() -> list[int]:
        ids: list[int] = []
        for i, part in enumerate(parts):
            if isinstance(part, int):
                ids.append(part)
            elif i == 0:
                ids += encoder(model, part)
            else:
                ids += model.tokenizer.encode(part, parse_special=True)
        return ids

    n_chars = sum(len(part) for part in parts if isinstance(part, str))
    ids = await asyncio.to_thread(make) if n_chars > LONG_CHARS else make()
    check_ids(model, ids, param)
    check_length(model, ids, param, options)
    return ids


def sampling_of(model: ServedModel, request: GenerationRequest) -> list[SamplingParams]:
    """Returns the parameters of each of the request's n sequences, with seeds one apart."""
    default = model.defaults.sampling
    bias: dict[int, float] = {}
    for key, amount in request.bias:
        ids = [key] if isinstance(key, int) else model.tokenizer.encode(key, parse_special=True)
        known = (i for i in ids if 0 <= i < model.tokenizer.vocab_size)  # no other is ever drawn
        bias.update(dict.fromkeys(known, amount))
    if request.ignore_eos:  # it is never drawn: after it the model would begin another text
        bias.update(dict.fromkeys(model.stop_ids, float("-inf")))
    seed = secrets.randbelow(MAX_DRAWN_SEED) if request.seed is None else request.seed
    changes: dict[str, Any] = {**request.sampling, "logit_bias": bias or default.logit_bias}
    sampling = replace(default, **changes)
    if sampling.dry_multiplier > 0:
        tokens, phrases = breaker_tokens(model.tokenizer, request.breakers)
        sampling = replace(sampling, dry_breakers=tokens, dry_phrases=phrases)
    return [replace(sampling, seed=(seed + i) & MAX_SEED) for i in range(request.n)]


def infill_ids(model: ServedModel, parts: InfillParts) -> list[int]:
    """Returns the fill-in-the-middle prompt: the additional files, the prefix, the suffix, and the
    token after which the middle follows. Raises ApiError 501 for a vocabulary without such
    tokens."""
    fim = model.facts.fim
    if fim is None:
        raise ApiError(
            501,
            f"The vocabulary of {model.id} has no tokens for filling a hole (fill-in-the-middle); "
            "serve a code model that was trained for it.",
            "not_supported_error",
        )

    def ids(text: str) -> list[int]:
        return model.tokenizer.encode(text)

    prompt: list[int] = []
    if fim.repo is not None:
        prompt += [fim.repo, *ids("myproject\n")]
    for extra in parts.extra:
        if fim.separator is not None:
            prompt += [fim.separator, *ids(f"{extra.name}\n")]
        prompt += ids(extra.text)
    if fim.separator is not None and (parts.extra or fim.repo is not None):
        prompt += [fim.separator, *ids("filename\n")]
    prompt += [fim.prefix, *ids(parts.prefix), *ids(parts.middle)]
    prompt += [fim.suffix, *ids(parts.suffix), fim.middle]
    return [*encode(model, ""), *prompt]
