"""Finds short completions: tokens that lead from anywhere in a grammar to a text that may end.

An answer has a last token. An open bracket or a missing member there makes the whole of a JSON
answer worthless, so the number of tokens that its end takes must be known before.
"""

from __future__ import annotations

import random
from itertools import chain

import numpy as np
from llguidance import LLMatcher

from dllama.constraints.vocabulary_bytes import VocabularyBytes

LONGEST = 512  # tokens of a completion; longer ones are not searched for
N_ORDERS = 4  # orders in which the letters are tried
# Bytes that end something are tried first, bytes that begin something last.
_BRACKETS = b"}]"
_ENDS = _BRACKETS + b'",:'
_PLAIN = b"0123456789nullfalsetrue"
_WORDS = bytes(chain(b"_", range(ord("a"), ord("z") + 1), range(ord("A"), ord("Z") + 1)))
_BEGINS = b"-.+{[()<>=/@# \n"


class CompletionFinder:
    """Finds completions for one vocabulary, a step at a time: by the first token of a single byte
    that the grammar allows. No byte tells which of several words ends a recursion, so letters are
    tried in several orders; and where text of any length may stand, only a control token ends it. A
    completion is short, but not always the shortest."""

    def __init__(self, vocabulary: VocabularyBytes) -> None:
        self._n_words = (len(vocabulary.tokens) + 31) // 32
        ids = vocabulary.byte_ids()
        self._brackets = {ids[b] for b in _BRACKETS if b in ids}
        self._ends = {ids[b] for b in _ENDS if b in ids}
        self._quote, self._letter = ids.get(ord('"')), ids.get(ord("a"))
        first, *others = [[ids[b] for b in order if b in ids] for order in _orders()]
        # The newest first: in Harmony they are nearest to the text of a message.
        controls = sorted(set(vocabulary.control_ids) - set(vocabulary.end_ids), reverse=True)
        orders = [first, controls + first, *others] if controls else [first, *others]
        self._orders = [np.array(order, np.int64) for order in orders]

    def find(self, matcher: LLMatcher, at_most: int) -> list[int] | None:
        """Returns up to `at_most` tokens after which the text may end: none where it may end here,
        None where no completion was found. The matcher stays where it is."""
        for order in self._orders:
            completion = self._follow(matcher.deep_copy(), order, min(at_most, LONGEST))
            if completion is not None:
                return completion
        return None

    def _follow(self, matcher: LLMatcher, order: np.ndarray, at_most: int) -> list[int] | None:
        words = np.zeros(self._n_words, np.uint32)
        completion: list[int] = []
        while not matcher.is_accepting():
            step = matcher.compute_ff_tokens()  # what the grammar leaves no choice about
            if not step:
                matcher.unsafe_compute_mask_ptr(words.ctypes.data, words.nbytes)
                allowed = order[words[order >> 5] >> (order & 31).astype(np.uint32) & 1 == 1]
                if not len(allowed):
                    return None
                step = [self._first(allowed)]
            if len(completion) + len(step) > at_most or not matcher.consume_tokens(step):
                return None
            completion += step
        return None if matcher.is_error() else completion

    def _first(self, allowed: np.ndarray) -> int:
        """Returns the token to try. A bracket where a letter may stand too is part of an open
        string, which it does not end."""
        first = int(allowed[0])
        if first in self._brackets and self._letter in allowed:
            later = [int(token) for token in allowed if token not in self._brackets]
            quote = [token for token in later if token == self._quote]
            digit = [token for token in later if token not in self._ends]
            return (quote or digit or [first])[0]
        return first


def _orders() -> list[bytes]:
    """Returns all bytes, each once, in N_ORDERS orders."""
    rng = random.Random(0)
    words = [_WORDS, _WORDS[::-1]]
    words += [bytes(rng.sample(_WORDS, len(_WORDS))) for _ in range(N_ORDERS - len(words))]
    rest = bytes(range(256))
    return [bytes(dict.fromkeys(_ENDS + _PLAIN + word + _BEGINS + rest)) for word in words]
