"""From a request of Ollama's to the tokens that an engine continues."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from api.errors import ApiError
from api.requests.native import InfillParts
from api.requests.ollama.bodies import OllamaPrompt, Think
from api.requests.ollama.go_template import render_go
from api.requests.prompts.conversation import Conversation, message, thinking_kwargs
from api.requests.prompts.prompting import (
    LONG_CHARS,
    ChatPrompt,
    check_ids,
    check_length,
    encode,
    infill_ids,
    render,
)
from api.served_model import ServedModel

_ANSWER = "«the answer before»"  # stands for it where the text around an answer is looked for


def thoughtful(model: ServedModel, conversation: Conversation, think: Think) -> Conversation:
    """Returns the conversation with the variables that `think` sets in the chat template. Raises
    ApiError for a model that has no thoughts and is asked for some."""
    if think is None:
        return conversation
    if model.think_tags is None:
        if think:
            raise ApiError(
                400,
                f"`think` asks {model.id} for thoughts, and it does not support thinking: its chat "
                "template knows no thoughts. Leave `think` out, or send false.",
                param="think",
            )
        return conversation
    strength = think if isinstance(think, str) and model.knows_effort else None
    return replace(conversation, kwargs=thinking_kwargs({}, bool(think), strength, "think"))


async def prompt_of(model: ServedModel, asked: OllamaPrompt) -> ChatPrompt:
    """Returns the prompt of a request that has one. A long one is made in a thread. Raises
    RequestError, TemplateError, and ApiError where there is no hole to fill."""
    n_chars = len(asked.prompt) + len(asked.system) + len(asked.suffix) + len(asked.template)
    is_long = n_chars + len(asked.context) > LONG_CHARS
    prompt = await asyncio.to_thread(_make, model, asked) if is_long else _make(model, asked)
    check_length(model, prompt.ids, "prompt", asked.generation.options)
    return prompt


def _make(model: ServedModel, asked: OllamaPrompt) -> ChatPrompt:
    if asked.is_raw:
        return ChatPrompt(asked.prompt, encode(model, asked.prompt))
    if asked.template:
        values = {"System": asked.system, "Prompt": asked.prompt, "Suffix": asked.suffix}
        text = render_go(asked.template, values, "template")
        return ChatPrompt(text, after_context(model, asked.context, text))
    if asked.suffix:
        return ChatPrompt("", infill_ids(model, InfillParts(asked.prompt, asked.suffix)))
    if not asked.context:
        text = render(model, asked.conversation)
        return ChatPrompt(text, encode(model, text))
    text = next_turn(model, asked.conversation)
    return ChatPrompt(text, after_context(model, asked.context, text))


def after_context(model: ServedModel, context: list[int], text: str) -> list[int]:
    """Returns the tokens of an earlier conversation and of the text that follows. Raises
    RequestError for ids that are none."""
    check_ids(model, context, "context")
    if not context:
        return encode(model, text)
    return [*context, *model.tokenizer.encode(text, parse_special=True)]


def next_turn(model: ServedModel, conversation: Conversation) -> str:
    """Returns the text between an answer and the next one: the end of its turn, and the user's
    next. The system prompt stands where the conversation begins, which the context holds."""
    *system, user = conversation.messages
    earlier = [*system, message("user", "?"), message("assistant", _ANSWER)]
    longer = replace(conversation, messages=[*earlier, user])
    _, found, rest = render(model, longer).rpartition(_ANSWER)
    return rest if found else render(model, conversation)
