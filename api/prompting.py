"""From what a request says to the tokens, stop ids and sampling that an engine gets."""

from __future__ import annotations

import asyncio
import secrets
from dataclasses import replace
from typing import Any

from api.errors import prompt_too_long
from api.fields import MAX_SEED
from api.generation_request import Conversation, GenerationRequest, Prompt
from api.served_model import ServedModel
from dllama.chat.messages import check_messages
from dllama.errors import RequestError
from dllama.requests import SamplingParams

LONG_CHARS = 8192  # about 2 ms of rendering and encoding; more goes to a thread


def render(model: ServedModel, conversation: Conversation) -> str:
    """The text a model reads for a conversation. Raises RequestError and TemplateError."""
    check_messages(conversation.messages)
    template = model.chat_template
    if not conversation.is_continued:
        add = conversation.add_generation_prompt
        return template.render(conversation.messages, None, add, **conversation.kwargs)
    *before, last = conversation.messages
    opened = template.render(before, None, True, **conversation.kwargs)
    return opened + str(last["content"])


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


def check_length(model: ServedModel, ids: list[int], param: str) -> None:
    """Raises unless a prompt has a token at least, and leaves room for one in the context."""
    if not ids:
        raise RequestError(
            f"`{param}` is empty: it has no token to continue from; send some text.", param=param
        )
    if len(ids) >= model.max_seq_len:
        raise prompt_too_long(len(ids), model.max_seq_len)


async def chat_ids(model: ServedModel, conversation: Conversation) -> list[int]:
    """The prompt of a chat, in tokens. A long one is made in a thread."""

    def make() -> list[int]:
        return encode(model, render(model, conversation))

    n_chars = sum(content_chars(message) for message in conversation.messages)
    ids = await asyncio.to_thread(make) if n_chars > LONG_CHARS else make()
    check_length(model, ids, "messages")
    return ids


def content_chars(message: dict[str, object]) -> int:
    """About how much text a message has; parts of a list count in full as long text."""
    content = message.get("content")
    if isinstance(content, list):
        return LONG_CHARS if len(content) > 64 else sum(len(str(part)) for part in content)
    return len(content) if isinstance(content, str) else 0


async def text_ids(model: ServedModel, prompt: Prompt) -> list[int]:
    """A prompt of /v1/completions, in tokens. A long text is encoded in a thread."""
    if isinstance(prompt, str):
        is_long = len(prompt) > LONG_CHARS
        ids = await asyncio.to_thread(encode, model, prompt) if is_long else encode(model, prompt)
    else:
        ids = prompt
        check_ids(model, ids, "prompt")
    check_length(model, ids, "prompt")
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
    seed = secrets.randbelow(MAX_SEED) if request.seed is None else request.seed
    changes: dict[str, Any] = {**request.sampling, "logit_bias": bias or default.logit_bias}
    sampling = replace(default, **changes)
    return [replace(sampling, seed=(seed + i) & MAX_SEED) for i in range(request.n)]
