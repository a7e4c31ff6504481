"""The probabilities of an answer's tokens, as each API shows them."""

from __future__ import annotations

from dataclasses import dataclass

from api.answers.events import Probs
from api.requests.sampling import LogprobStyle
from api.served_model import TextCodec
from dllama.requests import TokenProbs

Json = dict[str, object]


def token_label(data: bytes) -> str:
    """Returns a token's text; for a part of a character its bytes, as OpenAI writes them."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in data)


def token_entry(probs: TokenProbs, codec: TextCodec, *, has_ids: bool, is_post: bool) -> Json:
    """Returns a token and its alternatives: OpenAI's, or with `has_ids` an element of
    llama-server's `completion_probabilities`; with `is_post` the values are probabilities, not
    logarithms."""
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


def text_logprobs(told: Probs, codec: TextCodec) -> Json:
    """Returns OpenAI's four lists; the token itself is among its alternatives."""

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


@dataclass(frozen=True, slots=True)
class LogprobWriter:
    """Writes the probabilities of tokens in one style; None for no style."""

    style: LogprobStyle | None
    codec: TextCodec
    is_post: bool

    def streamed(self, told: Probs) -> Json | None:
        """Returns a chunk's `logprobs`, None without tokens."""
        return self.whole(told) if told else None

    def whole(self, told: Probs) -> Json | None:
        """Returns a whole choice's `logprobs`."""
        if self.style is None:
            return None
        if self.style is LogprobStyle.TEXT:
            return text_logprobs(told, self.codec)
        return {"content": self.entries(told), "refusal": None}

    def entries(self, told: Probs) -> list[Json]:
        has_ids = self.style is LogprobStyle.NATIVE
        return [
            token_entry(token.probs, self.codec, has_ids=has_ids, is_post=self.is_post)
            for token in told
        ]
