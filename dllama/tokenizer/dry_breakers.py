"""Finds the tokens of the texts that end a repetition (DRY's sequence breakers). A text may lie
inside one token, or begin at the end of one and go on in the next ones.

Source: the rule of llama.cpp (src/llama-sampling.cpp, get_overlapping_token_sequences).
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import Protocol

import numpy as np

DRY_BREAKERS = ("\n", ":", '"', "*")  # the default, as in llama.cpp
_MAX_TAIL = 20  # tokens of a breaker after the one it begins in


class Vocabulary(Protocol):
    """The part of a tokenizer that is read here; it also serves as the key of a cache."""

    @property
    def vocab_size(self) -> int: ...

    def token_bytes(self, token: int, /) -> bytes: ...

    def encode(self, text: str, /) -> list[int]: ...


def breaker_tokens(
    tokenizer: Vocabulary, texts: Iterable[str]
) -> tuple[list[int], list[list[int]]]:
    """Returns the tokens that hold one of the texts whole, and the sequences of several tokens that
    do."""
    singles: set[int] = set()
    phrases: list[list[int]] = []
    for text in dict.fromkeys(texts):
        inside, across = _tokens_of(tokenizer, text)  # type: ignore[arg-type]  # see Vocabulary
        singles.update(inside)
        phrases += across
    return sorted(singles), phrases


@lru_cache(maxsize=256)
def _tokens_of(tokenizer: Vocabulary, text: str) -> tuple[list[int], list[list[int]]]:
    data, ends = _all_bytes(tokenizer)  # type: ignore[arg-type]  # see Vocabulary
    breaker = text.encode("utf-8", "replace")
    inside = _tokens_with(data, ends, breaker)
    own = _continuation(tokenizer, breaker)
    across = [own] if len(own) > 1 else []  # also where it is cut inside a character
    for cut in range(1, len(breaker)):
        tail = _continuation(tokenizer, breaker[cut:])
        if tail:
            phrases = [[head, *tail] for head in _tokens_ending(data, ends, breaker[:cut])]
            across += [phrase for phrase in phrases if phrase != own]
    return inside, across


@lru_cache(maxsize=8)
def _all_bytes(tokenizer: Vocabulary) -> tuple[bytes, np.ndarray]:
    """Returns the bytes of all tokens, concatenated, and the end of each (vocab_size,)."""
    pieces = [tokenizer.token_bytes(token) for token in range(tokenizer.vocab_size)]
    return b"".join(pieces), np.cumsum([len(piece) for piece in pieces])


def _tokens_with(data: bytes, ends: np.ndarray, wanted: bytes) -> list[int]:
    """Returns the tokens whose bytes contain `wanted`, in rising order."""
    found: list[int] = []
    at = data.find(wanted)
    while at >= 0:
        token = int(ends.searchsorted(at, side="right"))
        if at + len(wanted) <= ends[token]:
            found.append(token)
            at = data.find(wanted, int(ends[token]))
        else:
            at = data.find(wanted, at + 1)
    return found


def _tokens_ending(data: bytes, ends: np.ndarray, wanted: bytes) -> list[int]:
    """Returns the tokens whose bytes end with `wanted`, in rising order."""
    raw = np.frombuffer(data, np.uint8)
    sizes = np.diff(ends, prepend=0)
    tokens = np.flatnonzero(sizes >= len(wanted))
    for back, value in enumerate(reversed(wanted), start=1):
        tokens = tokens[raw[ends[tokens] - back] == value]
    return [int(token) for token in tokens]


def _continuation(tokenizer: Vocabulary, tail: bytes) -> list[int]:
    """Returns the tokens that the rest of a text is written with; [] for a part of a character,
    with which no text begins."""
    try:
        text = tail.decode()
    except UnicodeDecodeError:
        return []
    before = tokenizer.encode("\n")  # a text of its own might begin with a space
    both = tokenizer.encode("\n" + text)
    tokens = both[len(before) :] if both[: len(before)] == before else tokenizer.encode(text)
    return tokens[:_MAX_TAIL]
