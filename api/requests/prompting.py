"""From what a request says to the tokens, stop ids and sampling that an engine gets."""

from __future__ import annotations

import asyncio
import secrets
from dataclasses import dataclass, replace
from itertools import takewhile
from typing import Any

from api.answers.reasoning import without_thoughts
from api.errors import prompt_too_long
from api.requests.engine_options import Keeping
from api.requests.fields import MAX_SEED
from api.requests.generation import Conversation, GenerationRequest, Prompt
from api.served_model import ServedModel
from api.tools.call_ids import fitting_ids
from api.tools.generic_prompt import told_in_words
from dllama.chat.messages import check_messages
from dllama.errors import RequestError, TemplateError
from dllama.requests import SamplingParams
from dllama.tokenizer.dry_breakers import breaker_tokens

MAX_DRAWN_SEED = 1 << 32  # a seed is told back, and any JSON reader keeps such a number whole
LONG_CHARS = 8192  # about 2 ms of rendering and encoding; more goes to a thread
MESSAGE_CHARS = 128  # rendering one message takes as long as encoding so many characters


def render(model: ServedModel, conversation: Conversation) -> str:
    """The text a model reads for a conversation. Raises RequestError and TemplateError."""
    check_messages(conversation.messages)
    dialect, kwargs = model.tool_dialect, conversation.kwargs
    if "reasoning_effort" in kwargs and not model.knows_effort:
        raise RequestError(
            f"`reasoning_effort` means nothing to {model.id}, whose chat template knows no efforts;"
            " leave it out, or send 'none' for no thoughts.",
            param="reasoning_effort",
        )
    messages = told_in_words(conversation.messages, conversation.tools, dialect)
    messages = fitting_ids(messages, dialect)
    tools = conversation.tools.raw if dialect.describes_tools else None
    template = model.chat_template
    if not conversation.is_continued:
        add = conversation.add_generation_prompt
        prompt = template.render(messages, tools, add, **kwargs)
        if model.think_tags is not None and kwargs.get("enable_thinking") is False:
            return without_thoughts(prompt, model.think_tags)
        return prompt
    *before, last = messages
    opened = template.render(before, tools, True, **kwargs)
    return opened + text_of(last["content"])


def text_of(content: object) -> str:
    """The text of a message's checked content; parts are joined as templates join them."""
    if isinstance(content, list):
        return "\n".join(part["text"] for part in content)
    return str(content)


def encode(model: ServedModel, text: str) -> list[int]:
    """Its ids, special tokens parsed; BOS where the model wants one and the text has none."""
    bos = model.tokenizer.bos_text
    has_bos = bool(bos) and text.startswith(bos)
    return model.tokenizer.encode(text, add_special=not has_bos, parse_special=True)


def check_ids(model: ServedModel, ids: list[int], param: str) -> None:
    """RequestError unless all `ids` are in the vocabulary."""
    size = model.tokenizer.vocab_size
    for token_id in ids:
        if not 0 <= token_id < size:
            raise RequestError(
                f"`{param}` has the token id {token_id}, but the vocabulary of {model.id} has "
                f"the ids 0 to {size - 1}.",
                param=param,
            )


def may_shift(model: ServedModel, keeping: Keeping) -> bool:
    """Whether the context of this request goes on when it is full."""
    asked = keeping.context_shift
    return model.facts.context_shift if asked is None else asked


def check_length(
    model: ServedModel, ids: list[int], param: str, keeping: Keeping | None = None
) -> None:
    """Raises unless a prompt has a token at least, and leaves room for one in the context or may
    outgrow it."""
    if not ids:
        raise RequestError(
            f"`{param}` is empty: it has no token to continue from; send some text.", param=param
        )
    if keeping is not None and may_shift(model, keeping):
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
    model: ServedModel, conversation: Conversation, keeping: Keeping | None = None
) -> ChatPrompt:
    """The prompt of a chat. A long one is made in a thread."""
    keeping = keeping or Keeping()

    def make() -> ChatPrompt:
        text = render(model, conversation)
        ids = encode(model, text)
        counts = may_shift(model, keeping) and keeping.n_keep is None
        return ChatPrompt(text, ids, count_system(model, conversation, ids) if counts else 0)

    prompt = await asyncio.to_thread(make) if is_long(conversation) else make()
    check_length(model, prompt.ids, "messages", keeping)
    return prompt


def count_system(model: ServedModel, conversation: Conversation, ids: list[int]) -> int:
    """How many of a prompt's first tokens come before anything that the user says: those that it
    has in common with a chat of the same system prompt."""
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
    """Whether rendering and encoding would hold up the event loop; a guess from its size."""
    n_chars = LONG_CHARS if conversation.tools.rendered else 0
    for message in conversation.messages:
        content = message.get("content")
        text = content if isinstance(content, str) else str(content)
        n_chars += len(text) + MESSAGE_CHARS
        if n_chars > LONG_CHARS:
            return True
    return False


async def text_ids(
    model: ServedModel, prompt: Prompt, param: str = "prompt", keeping: Keeping | None = None
) -> list[int]:
    """A prompt of /v1/completions, or a text to embed, in tokens. A long text is encoded in a
    thread."""
    if isinstance(prompt, str):
        if len(prompt) > LONG_CHARS:
            ids = await asyncio.to_thread(encode, model, prompt)
        else:
            ids = encode(model, prompt)
    else:
        ids = prompt
        check_ids(model, ids, param)
    check_length(model, ids, param, keeping)
    return ids


def sampling_of(
    model: ServedModel, request: GenerationRequest, default: SamplingParams
) -> list[SamplingParams]:
    """How each of the request's n sequences is sampled: alike, with seeds one apart."""
    bias: dict[int, float] = {}
    for key, amount in request.bias:
        ids = [key] if isinstance(key, int) else model.tokenizer.encode(key, parse_special=True)
        check_ids(model, ids, "logit_bias")
        bias.update(dict.fromkeys(ids, amount))
    seed = secrets.randbelow(MAX_DRAWN_SEED) if request.seed is None else request.seed
    changes: dict[str, Any] = {**request.sampling, "logit_bias": bias or default.logit_bias}
    sampling = replace(default, **changes)
    if sampling.dry_multiplier > 0:
        tokens, phrases = breaker_tokens(model.tokenizer, request.breakers)
        sampling = replace(sampling, dry_breakers=tokens, dry_phrases=phrases)
    return [replace(sampling, seed=(seed + i) & MAX_SEED) for i in range(request.n)]
