"""Masks of the tokens that a grammar allows, computed by llguidance in threads of their own.

llguidance lets go of the GIL while it compiles and while it computes a mask, so a thread here
costs the engine's Python thread microseconds, not the length of the computation. A mask is begun
when a token is committed and wanted when the next step's logits are there.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Lock

import numpy as np
from llguidance import LLMatcher, LLTokenizer, TokenizerWrapper

from dllama.constraints.completions import CompletionFinder
from dllama.constraints.token_budget import TokenBudget
from dllama.constraints.vocabulary_bytes import VocabularyBytes
from dllama.errors import DllamaError, RequestError
from dllama.requests import Resume

N_THREADS = 2  # a grammar that takes long to compile must not hold up the masks of the others
N_KEPT = 64  # compiled grammars; a copy of one costs a hundredth of compiling it


class GrammarMasks:
    """A ConstraintMaker over one vocabulary; `vocab_size` is the length of a row of logits, which
    may be more than the tokens of the vocabulary."""

    def __init__(self, vocabulary: VocabularyBytes, vocab_size: int) -> None:
        self.vocab_size = vocab_size
        self.end_ids = np.array(vocabulary.end_ids, np.int64)
        self.n_tokens = len(vocabulary.tokens)
        self._tokenizer = _tokenizer_of(vocabulary)
        self.completions = CompletionFinder(vocabulary)
        self._compiled: OrderedDict[str, LLMatcher] = OrderedDict()
        self._lock = Lock()
        self._pool = ThreadPoolExecutor(N_THREADS, thread_name_prefix="masks")

    def make(
        self,
        grammar: str,
        stop_ids: Collection[int],
        n_left: int | None = None,
        resume: Resume | None = None,
    ) -> GrammarConstraint:
        return GrammarConstraint(self, grammar, stop_ids, n_left, resume or Resume())

    def close(self) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)

    def begin(self, constraint: GrammarConstraint) -> Future[np.ndarray]:
        """Starts computing the next mask of a constraint in the background."""
        return self._pool.submit(constraint.compute)

    def matcher(self, grammar: str) -> LLMatcher:
        """Returns a matcher at the grammar's beginning; a cached grammar is not compiled again.
        Raises RequestError."""
        with self._lock:
            known = self._compiled.get(grammar)
            if known is not None:
                self._compiled.move_to_end(grammar)
                return known.deep_copy()
        made = LLMatcher(self._tokenizer, grammar, log_level=0)
        if made.is_error():
            raise RequestError(
                f"the grammar cannot be compiled for this model: {made.get_error()[:500]}",
                param="grammar",
            )
        with self._lock:
            self._compiled[grammar] = made
            if len(self._compiled) > N_KEPT:
                self._compiled.popitem(last=False)
            return made.deep_copy()


class GrammarConstraint:
    """One sequence's place in a grammar. Used by one thread at a time: by the pool's while a mask
    is under way, by the engine's otherwise."""

    def __init__(
        self,
        masks: GrammarMasks,
        grammar: str,
        stop_ids: Collection[int],
        n_left: int | None,
        resume: Resume,
    ) -> None:
        self._masks = masks
        self._resume = resume
        self._n_left = n_left
        self._budget = TokenBudget(masks.completions)
        self._grammar = grammar
        self._stop_ids = np.array(sorted(stop_ids), np.int64)
        self._matcher: LLMatcher | None = None
        self._words = np.zeros((masks.n_tokens + 31) // 32, np.uint32)
        self._pending: Future[np.ndarray] | None = masks.begin(self)

    def compute(self) -> np.ndarray:
        """Returns the mask's bits (words,) uint32, as llguidance writes them; looks for a
        completion, if one is due. Raises DllamaError."""
        if self._matcher is None:
            self._matcher = self._masks.matcher(self._grammar)
            self._follow(self._matcher, self._resume.tokens)
        words = self._words
        self._matcher.unsafe_compute_mask_ptr(words.ctypes.data, words.nbytes)
        self._raise_errors(self._matcher)
        if self._n_left is not None:
            self._budget.look(self._matcher, self._n_left)
        return words

    def _follow(self, matcher: LLMatcher, tokens: list[int]) -> None:
        """Takes the answer so far as `mask`, `keep` and `advance` took it, but for the masks."""
        for token in tokens:
            if self._n_left is not None:
                self._budget.look(matcher, self._n_left)
                self._budget.keep(matcher, token, self._n_left)
                self._n_left -= 1
            if not matcher.consume_token(token):
                self._raise_errors(matcher)
                raise DllamaError(f"the grammar does not allow {token}, a token of the answer")
        self._budget.n_replaced = self._resume.n_replaced

    @property
    def n_replaced(self) -> int:
        return self._budget.n_replaced

    def mask(self) -> np.ndarray:
        pending, self._pending = self._pending, None
        words = self.compute() if pending is None else pending.result()
        assert self._matcher is not None, "a computed mask has a matcher"
        n = self._masks.n_tokens
        mask = np.zeros(self._masks.vocab_size, np.bool_)
        mask[:n] = np.unpackbits(words.view(np.uint8), bitorder="little")[:n]
        mask[self._masks.end_ids] = False
        mask[self._stop_ids] = self._matcher.is_accepting()
        if not mask.any() and not self._matcher.is_accepting():
            raise RequestError(
                "no token can continue the answer as the grammar wants it; the grammar allows no "
                "text at this point, or none that this model's vocabulary can write",
                param="grammar",
            )
        return mask

    def keep(self, token: int) -> int:
        assert self._pending is None and self._matcher is not None, "mask() comes before keep()"
        if self._n_left is None:
            return token
        return self._budget.keep(self._matcher, token, self._n_left)

    def advance(self, token: int) -> bool:
        assert self._pending is None and self._matcher is not None, "mask() comes before advance()"
        if not self._matcher.consume_token(token):
            self._raise_errors(self._matcher)
            raise DllamaError(f"the grammar does not allow the token {token} that was drawn")
        if self._matcher.is_stopped():
            return False
        if self._n_left is not None:
            self._n_left -= 1
        self._pending = self._masks.begin(self)
        return True

    @staticmethod
    def _raise_errors(matcher: LLMatcher) -> None:
        if matcher.is_error():
            raise DllamaError(
                "the grammar cannot be followed any further: "
                f"{matcher.get_error()[:500] or matcher.stop_reason()}; use a simpler one"
            )


class _Vocabulary(TokenizerWrapper):
    """The vocabulary as llguidance reads it to build its table of tokens. It also calls this object
    for the tokens of text that a grammar forces; its threads take the GIL for that, some 50 µs."""

    def __init__(self, vocabulary: VocabularyBytes) -> None:
        self._vocabulary = vocabulary
        self.eos_token_id = vocabulary.end_ids[0]
        self.bos_token_id = None
        self.tokens = vocabulary.tokens
        self.special_token_ids = vocabulary.control_ids
        self.is_tokenizer_wrapper = True
        self._byte_ids = vocabulary.byte_ids()

    def __call__(self, text: str | bytes) -> list[int]:
        data = text.encode() if isinstance(text, str) else text
        try:
            ids = self._vocabulary.encode(data.decode())
        except (UnicodeDecodeError, DllamaError):
            ids = []
        if b"".join(self.tokens[i] for i in ids) == data:
            return ids
        # SentencePiece reads "▁" as a space. Tokens of other bytes, or none, would be skipped text.
        return [self._byte_ids[b] for b in data if b in self._byte_ids]


def _tokenizer_of(vocabulary: VocabularyBytes) -> LLTokenizer:
    """Returns the vocabulary as a tokenizer of llguidance. Raises DllamaError where no token ends a
    text."""
    if not vocabulary.end_ids:
        raise DllamaError(
            "the tokenizer names no token that ends an answer, and grammars need one; give "
            "another one with --tokenizer"
        )
    return LLTokenizer(
        _Vocabulary(vocabulary), n_vocab=len(vocabulary.tokens), eos_token=vocabulary.end_ids
    )
