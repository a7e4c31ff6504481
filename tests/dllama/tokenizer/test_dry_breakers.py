"""Breakers of repetitions, as tokens."""

from __future__ import annotations

import pytest

from benchmarks.writers.filler_vocabulary import bpe_metadata
from dllama.tokenizer.dry_breakers import breaker_tokens
from dllama.tokenizer.tokenizer import Tokenizer


class Letters:
    """A vocabulary of a few pieces, taken greedily."""

    def __init__(self, *pieces: bytes) -> None:
        self._pieces = pieces

    @property
    def vocab_size(self) -> int:
        return len(self._pieces)

    def token_bytes(self, token: int, /) -> bytes:
        return self._pieces[token]

    def encode(self, text: str, /) -> list[int]:
        data, ids = text.encode(), []
        while data:
            fitting = [
                t for t, piece in enumerate(self._pieces) if piece and data.startswith(piece)
            ]
            token = max(fitting, key=lambda t: len(self._pieces[t]))
            ids.append(token)
            data = data[len(self._pieces[token]) :]
        return ids


PIECES = (
    b"a", b"b", b"\n", b"x:", b"", b"::", b"ab", b"b\n", b"\xe2", b"\x98\x95", b"c", b":",
)  # fmt: skip


@pytest.mark.parametrize(
    ("text", "singles", "phrases"),
    [
        ("\n", [2, 7], []),
        (":", [3, 5, 11], []),
        ("a", [0, 6], []),
        ("ab", [6], [[0, 1]]),  # inside "ab", and "a" with "b" after it
        ("abc", [], [[6, 10], [0, 1, 10]]),
        ("☕", [], [[8, 9]]),  # cut inside a character
    ],
)
def test_texts_in_and_across_tokens(
    text: str, singles: list[int], phrases: list[list[int]]
) -> None:
    assert breaker_tokens(Letters(*PIECES), [text]) == (singles, phrases)


def test_every_token_of_a_real_vocabulary_that_holds_the_text() -> None:
    tokenizer = Tokenizer.from_gguf_metadata(bpe_metadata(700))
    singles, phrases = breaker_tokens(tokenizer, ["e", "th"])
    pieces = {token: tokenizer.token_bytes(token) for token in range(tokenizer.vocab_size)}
    assert singles == [t for t, piece in pieces.items() if b"e" in piece or b"th" in piece]
    heads = {phrase[0] for phrase in phrases}
    assert heads == {t for t, piece in pieces.items() if piece.endswith(b"t")}
    assert {tuple(phrase[1:]) for phrase in phrases} == {tuple(tokenizer.encode("h"))}
