"""The fields of sampling and of probabilities that are more than a number under the name it has in
SamplingParams."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any

from api.requests.fields import SAMPLING, Body, Field, boolean, integer, wrong
from dllama.engine.sampling.names import (
    DEFAULT_ORDER,
    LETTERS,
    MAX_CHAIN,
    samplers_of_letters,
    samplers_of_names,
)
from dllama.errors import RequestError
from dllama.requests import MAX_PROBS
from dllama.tokenizer.dry_breakers import DRY_BREAKERS

MAX_TOP_LOGPROBS = 20  # OpenAI's limit
MAX_BREAKERS = 32
MAX_BREAKER_CHARS = 40


class LogprobStyle(StrEnum):
    CHAT = "chat"  # OpenAI's of a chat: {"content": [...]}
    TEXT = "text"  # OpenAI's of a text completion: four lists
    NATIVE = "native"  # llama-server's: as CHAT, with ids


def samplers(value: object, name: str) -> tuple[str, ...]:
    """A list of names, or a text of letters."""
    found = None
    if isinstance(value, str):
        found = samplers_of_letters(value)
    elif isinstance(value, list):
        found = samplers_of_names(value)
    if found is None or len(found) > MAX_CHAIN:
        wanted = f"at most {MAX_CHAIN} of {', '.join(DEFAULT_ORDER)}, or of the letters "
        raise wrong(name, wanted + "".join(LETTERS), value)
    return found


def breakers(value: object, name: str) -> tuple[str, ...]:
    """A list of texts, none of them empty."""
    wanted = f"a list of at most {MAX_BREAKERS} texts of 1 to {MAX_BREAKER_CHARS} characters each"
    if not isinstance(value, list) or len(value) > MAX_BREAKERS:
        raise wrong(name, wanted, value)
    if not all(isinstance(text, str) and 0 < len(text) <= MAX_BREAKER_CHARS for text in value):
        raise wrong(name, wanted, value)
    return tuple(dict.fromkeys(value))


def count_or_false(value: object, name: str) -> int | None:
    """Reads the number of alternatives; false, as in chats, means no probabilities at all."""
    return None if value is False else integer(0, MAX_TOP_LOGPROBS)(value, name)


NUMBERS = tuple(Field((name,), read, None) for name, read in SAMPLING.items())
SAMPLER_LIST = Field(("samplers",), samplers, None)
BREAKERS: Field[tuple[str, ...], tuple[str, ...]] = Field(
    ("dry_sequence_breakers",), breakers, DRY_BREAKERS
)
N_PROBS = Field(("n_probs",), integer(0, MAX_PROBS), None)
POST_SAMPLING_PROBS = Field(("post_sampling_probs",), boolean, False)

SAMPLING_FIELDS: tuple[Field[object, object], ...] = (
    *NUMBERS, SAMPLER_LIST, BREAKERS,
)  # fmt: skip
PROBS_FIELDS: tuple[Field[object, object], ...] = (N_PROBS, POST_SAMPLING_PROBS)

CHAT_LOGPROBS = Field(("logprobs",), boolean, False)
TOP_LOGPROBS = Field(("top_logprobs",), integer(0, MAX_TOP_LOGPROBS), None)
TEXT_LOGPROBS = Field(("logprobs",), count_or_false, None)


Asked = tuple[int, LogprobStyle]  # how many alternatives of each token, and how they are told


def sampling_of_body(body: Body, asked: Asked | None = None) -> dict[str, Any]:
    """Returns the fields of SamplingParams that a body sets, but for seed, bias and breakers.
    `asked` is what the route's own field of probabilities asks for, in addition to `n_probs`."""
    found: dict[str, Any] = {field.names[0]: field.of(body) for field in NUMBERS}
    found["samplers"] = SAMPLER_LIST.of(body)
    n_probs, is_post = N_PROBS.of(body) or None, POST_SAMPLING_PROBS.of(body)
    if asked is not None:
        n_probs = max(n_probs or 0, asked[0])
        if is_post and asked[1] is LogprobStyle.TEXT:
            raise RequestError(
                "`post_sampling_probs` does not go with `logprobs`, which are logarithms; send "
                "`n_probs` instead of `logprobs`.",
                param="post_sampling_probs",
            )
    if n_probs is not None:
        found |= {"n_probs": n_probs, "post_sampling_probs": is_post}
    return {name: value for name, value in found.items() if value is not None}


def style_of(sampling: Mapping[str, object], asked: Asked | None) -> LogprobStyle | None:
    """Returns the style of the probabilities that `sampling_of_body` has found to be wanted."""
    if asked is not None:
        return asked[1]
    return LogprobStyle.NATIVE if "n_probs" in sampling else None


def told_of_chat(body: Body) -> Asked | None:
    """Reads OpenAI's `logprobs` and `top_logprobs` of a chat: the number of alternatives, None for
    no probabilities."""
    is_on, n = CHAT_LOGPROBS.of(body), TOP_LOGPROBS.of(body)
    if not is_on and n:
        raise RequestError(
            "`top_logprobs` tells of alternatives only together with `logprobs`: true; send both.",
            param="top_logprobs",
        )
    return (n or 0, LogprobStyle.CHAT) if is_on else None


def told_of_text(body: Body) -> Asked | None:
    """Reads OpenAI's `logprobs` of a text completion."""
    n = TEXT_LOGPROBS.of(body)
    return None if n is None else (n, LogprobStyle.TEXT)
