"""The probabilities of an answer's tokens, as each API shows them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from api.served_model import TextCodec
from dllama.requests import TokenProbs

Json = dict[str, object]


class LogprobStyle(StrEnum):
    CHAT = "chat"  # OpenAI's of a chat: {"content": [...]}
    TEXT = "text"  # OpenAI's of a text completion: four lists
    NATIVE = "native"  # llama-server's: as CHAT, with ids


@dataclass(frozen=True, slots=True)
class ToldToken:
    """A token of the answer, and where its text begins there, in characters."""

    probs: TokenProbs
    offset: int


def token_label(data: bytes) -> str:
    """A token's text; for a part of a character its bytes, as OpenAI writes them."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in data)


def dressed(
    told: Sequence[ToldToken], style: LogprobStyle, codec: TextCodec, *, is_post: bool
) -> Json:
    """What stands under a choice's `logprobs` for these tokens."""
    if style is LogprobStyle.TEXT:
        return text_logprobs(told, codec)
    has_ids = style is LogprobStyle.NATIVE
    content = [token_entry(token.probs, codec, has_ids=has_ids, is_post=is_post) for token in told]
    return {"content": content, "refusal": None}


def token_entry(probs: TokenProbs, codec: TextCodec, *, has_ids: bool, is_post: bool) -> Json:
    """A token and its alternatives: OpenAI's, or with `has_ids` an element of llama-server's
    `completion_probabilities`; with `is_post` the values are probabilities, not logarithms."""
    value, alternatives = ("prob", "top_probs") if is_post else ("logprob", "top_logprobs")

    def entry(token: int, amount: float) -> Json:
        data = codec.token_bytes(token)
        head: Json = {"id": token} if has_ids else {}
        return {**head, "token": token_label(data), value: amount, "bytes": list(data)}

    top = zip(probs.top_ids, probs.top_values, strict=True)
    return {
        **entry(probs.token, probs.value),
        alternatives: [entry(token, amount) for token, amount in top],
    }


def text_logprobs(told: Sequence[ToldToken], codec: TextCodec) -> Json:
    """OpenAI's four lists; the token itself is among its alternatives, as there."""

    def label(token: int) -> str:
        return token_label(codec.token_bytes(token))

    tops: list[dict[str, float]] = []
    for token in told:
        probs = token.probs
        top: dict[str, float] = {}
        for other, amount in zip(probs.top_ids, probs.top_values, strict=True):
            top.setdefault(label(other), amount)
        if probs.top_ids:
            top.setdefault(label(probs.token), probs.value)
        tops.append(top)
    return {
        "tokens": [label(token.probs.token) for token in told],
        "token_logprobs": [token.probs.value for token in told],
        "top_logprobs": tops,
        "text_offset": [token.offset for token in told],
    }


class ToldTokens:
    """The tokens of an answer whose probabilities are still to be told, in order."""

    def __init__(self, codec: TextCodec, *, is_post: bool) -> None:
        self._codec, self._is_post = codec, is_post
        self._waiting: list[ToldToken] = []

    def note(self, probs: TokenProbs, offset: int) -> None:
        self._waiting.append(ToldToken(probs, offset))

    def take(self, n_shown: int, *, is_all: bool) -> list[ToldToken]:
        """Those whose text begins among the n_shown characters that the client has, or all."""
        n = len(self._waiting)
        if not is_all:
            n = sum(token.offset < n_shown for token in self._waiting)
        taken, self._waiting = self._waiting[:n], self._waiting[n:]
        return taken

    def dressed(self, told: Sequence[ToldToken], style: LogprobStyle) -> Json:
        return dressed(told, style, self._codec, is_post=self._is_post)
