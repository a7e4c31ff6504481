"""The shortest way from anywhere in a grammar to a text that may end there, more or less.

Answers have a last token. What is begun by then and not ended, an open bracket, a missing member,
makes the whole of a JSON answer worthless; so somebody has to know how many tokens its end takes.
"""

from __future__ import annotations

import random
from itertools import chain

import numpy as np
from llguidance import LLMatcher

from dllama.constraints.vocabulary_bytes import VocabularyBytes

LONGEST = 512  # tokens; what needs more is not looked for
N_ORDERS = 4  # in which the bytes are tried that begin different things
# What ends something comes first, what begins something last.
_BRACKETS = b"}]"
_ENDS = _BRACKETS + b'",:'
_PLAIN = b"0123456789nullfalsetrue"
_WORDS = bytes(chain(b"_", range(ord("a"), ord("z") + 1), range(ord("A"), ord("Z") + 1)))
_BEGINS = b"-.+{[()<>=/@# \n"


class WaysOut:
    """Finds ways for one vocabulary: a step at a time, by the first token of a single byte that
    the grammar allows. Which of several words leads out of a recursion no byte tells, so words are
    tried in several orders."""

    def __init__(self, vocabulary: VocabularyBytes) -> None:
        self._n_words = (len(vocabulary.tokens) + 31) // 32
        ids = vocabulary.byte_ids()
        self._brackets = {ids[b] for b in _BRACKETS if b in ids}
        self._ends = {ids[b] for b in _ENDS if b in ids}
        self._quote, self._letter = ids.get(ord('"')), ids.get(ord("a"))
        self._orders = [
            np.array([ids[b] for b in order if b in ids], np.int64) for order in _orders()
        ]

    def find(self, matcher: LLMatcher, at_most: int) -> list[int] | None:
        """Tokens behind which the text may end, at most so many; none where it may end here; None
        where no way was found. The matcher stays where it is."""
        for order in self._orders:
            way = self._follow(matcher.deep_copy(), order, min(at_most, LONGEST))
            if way is not None:
                return way
        return None

    def _follow(self, matcher: LLMatcher, order: np.ndarray, at_most: int) -> list[int] | None:
        words = np.zeros(self._n_words, np.uint32)
        way: list[int] = []
        while not matcher.is_accepting():
            step = matcher.compute_ff_tokens()  # what the grammar leaves no choice about
            if not step:
                matcher.unsafe_compute_mask_ptr(words.ctypes.data, words.nbytes)
                allowed = order[words[order >> 5] >> (order & 31).astype(np.uint32) & 1 == 1]
                if not len(allowed):
                    return None
                step = [self._first(allowed)]
            if len(way) + len(step) > at_most or not matcher.consume_tokens(step):
                return None
            way += step
        return None if matcher.is_error() else way

    def _first(self, allowed: np.ndarray) -> int:
        """Where a bracket and a letter may both stand, a text is open and no bracket ends it."""
        first = int(allowed[0])
        if first in self._brackets and self._letter in allowed:
            later = [int(token) for token in allowed if token not in self._brackets]
            quote = [token for token in later if token == self._quote]
            digit = [token for token in later if token not in self._ends]
            return (quote or digit or [first])[0]
        return first


def _orders() -> list[bytes]:
    """Each byte once, in N_ORDERS orders."""
    rng = random.Random(0)
    words = [_WORDS, _WORDS[::-1]]
    words += [bytes(rng.sample(_WORDS, len(_WORDS))) for _ in range(N_ORDERS - len(words))]
    rest = bytes(range(256))
    return [bytes(dict.fromkeys(_ENDS + _PLAIN + word + _BEGINS + rest)) for word in words]
