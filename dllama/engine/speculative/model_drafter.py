"""Drafts by a second, small model of the same vocabulary.

Knows a Runner of its own and the KV pages of it. It runs between the steps of the target model, on
the engine's thread, and drafts for all sequences at once: one ragged step for each drafted token.
"""

from __future__ import annotations

import math
from collections.abc import Sequence as Many
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np

from dllama.engine.batch import page_copies, page_table
from dllama.engine.kv.cache import KvCache
from dllama.engine.scheduler import fair_shares
from dllama.engine.sequence import Sequence
from dllama.engine.speculative.draft import Draft, HitRates
from dllama.engine.speculative.ngram import NgramDrafter
from dllama.requests import SamplingParams, Submit
from dllama.runner import Runner, windows_of
from dllama.step import PAGE_TOKENS, LogitRow, Step

DEFAULT_DRAFT = 8  # tokens of a draft: with the row before them a tile of eight, and one
MIN_CHANCE = 0.4  # of a token after those before it, where a request names none
N_LIKELIHOODS = 8  # classes of likelihood, equally wide
GREEDY = SamplingParams(temperature=0.0)


class DraftRequest(NamedTuple):
    """Asks for at most `max_tokens` tokens that may follow `tokens`, which begin with those of the
    drafter's last request."""

    drafter: ModelDrafter
    tokens: list[int]
    max_tokens: int


class ModelDrafter:
    """Drafts for one sequence by a DraftModel, and the sequence's KV pages in that model."""

    def __init__(
        self, model: DraftModel, submit: Submit, lookup: NgramDrafter, *, max_tokens: int,
        min_tokens: int = 0, min_chance: float = 0.0,
    ) -> None:  # fmt: skip
        """`lookup` drafts from the text, which costs nothing, and is asked first. A draft of the
        model has at most `max_tokens`, ends before a token whose likelihood is below `min_chance`,
        and is dropped if it has fewer than `min_tokens`."""
        self.lookup = lookup
        self._model, self._min_tokens = model, min_tokens
        self.max_tokens, self.min_chance = max_tokens, min_chance or MIN_CHANCE
        plain = replace(submit, sampling=GREEDY, grammar=None, session_id=None, context_shift=False)
        # The draft model's view of the sequence: the same tokens, with an `n_computed` of its own.
        self.sequence = Sequence.from_submit(plain, model.vocab_size, 0.0)
        # The prior of each class is the model's own likelihood. A small model that is half sure may
        # be right nearly always where the target is greedy, and seldom where it samples.
        self.rates = HitRates((i + 0.5) / N_LIKELIHOODS for i in range(N_LIKELIHOODS))
        self._draft: list[tuple[int, float]] = []  # tokens and likelihoods of the last draft,
        self._n_known = 0  # the number of tokens it follows,
        self._n_written = 0  # and how many of its tokens have keys and values in the pages

    def draft(self, tokens: list[int], max_tokens: int) -> Draft:
        """A draft for this sequence alone."""
        [draft] = self._model.draft([DraftRequest(self, tokens, max_tokens)])
        return draft

    def trimmed(self, draft: list[int]) -> list[int]:
        """The draft, or an empty one where it has fewer than `min_tokens`."""
        return draft if len(draft) >= self._min_tokens else []

    def leave(self) -> None:
        """Gives all pages back; their contents can be found again until they are evicted."""
        self._model.kv.leave(self.sequence)
        self._n_written = 0

    def follow(self, tokens: list[int]) -> None:
        """Takes over the sequence's new tokens. Accepted draft tokens are computed already, the
        others are overwritten. The last token is computed again, for its logits."""
        sequence = self.sequence
        sequence.tokens = tokens
        n_right = self._learn(tokens)
        if self._n_written:
            n = min(n_right, self._n_written, sequence.n_pending - 1)
            self._model.kv.note_computed(sequence, max(0, n))
        self._draft, self._n_written = [], 0

    def note(self, tokens: list[int], likelihoods: list[float], n_written: int) -> None:
        """Records a draft, whether or not it will be checked."""
        self._draft = list(zip(tokens, likelihoods, strict=True))
        self._n_known, self._n_written = len(self.sequence.tokens), n_written

    def _learn(self, tokens: list[int]) -> int:
        """Compares the last draft with the tokens that came, up to the first difference, and
        returns the number of equal tokens."""
        came = tokens[self._n_known : self._n_known + len(self._draft)]
        for i, token in enumerate(came):
            drafted, likelihood = self._draft[i]
            self.rates.learn(_class_of(likelihood), token == drafted)
            if token != drafted:
                return i
        return len(came)


def _class_of(likelihood: float) -> int:
    return min(int(likelihood * N_LIKELIHOODS), N_LIKELIHOODS - 1)


@dataclass(slots=True)
class _GrowingDraft:
    """A draft while the model extends it token by token."""

    drafter: ModelDrafter
    max_tokens: int
    tokens: list[int] = field(default_factory=list)
    likelihoods: list[float] = field(default_factory=list)  # each given the tokens before it
    chances: list[float] = field(default_factory=list)
    n_written: int = 0

    @property
    def sequence(self) -> Sequence:
        return self.drafter.sequence

    def grow(self, row: LogitRow, min_chance: float) -> bool:
        """Appends the likeliest token if it is likely enough; returns whether to go on."""
        assert row.ids is not None  # candidates were asked for
        likelihood = math.exp(float(row.logits[0]) - row.log_sum_exp)
        if not likelihood >= self.drafter.min_chance:  # also where logits are no numbers
            return False
        rate = self.drafter.rates.of(_class_of(likelihood))
        self.tokens.append(int(row.ids[0]))
        self.likelihoods.append(likelihood)
        self.chances.append(rate * (self.chances[-1] if self.chances else 1.0))
        return len(self.tokens) < self.max_tokens and self.chances[-1] >= min_chance

    def next_rows(self) -> _Rows:
        """The newest drafted token as a row of the next step."""
        first = len(self.sequence.tokens) + len(self.tokens) - 1
        self.n_written += 1
        return _Rows(self.sequence, self.tokens[-1:], first, is_last=True)


class _Rows(NamedTuple):
    """Tokens of a sequence in one step, and whether the logits after the last are wanted."""

    sequence: Sequence
    tokens: list[int]
    first: int
    is_last: bool


class DraftModel:
    """The draft model of one engine, and its KV cache."""

    def __init__(self, runner: Runner, *, max_tokens: int = DEFAULT_DRAFT, max_rows: int) -> None:
        """Drafts have at most `max_tokens`, the runner's steps at most `max_rows`."""
        self.runner, self._max_rows = runner, max_rows
        self.max_tokens = max_tokens
        self._max_len = min(runner.config.max_seq_len, runner.n_pages * PAGE_TOKENS)
        self.kv = KvCache(runner.n_pages, self._max_len, windows=windows_of(runner))
        self.n_rounds = 0  # steps of the model for the last drafts
        self.has_read = False  # whether some of them computed prompt tokens

    @property
    def vocab_size(self) -> int:
        return self.runner.config.n_tokens

    def draft(self, requests: Many[DraftRequest], min_chance: float = 0.0) -> list[Draft]:
        """A draft for each request, empty where it has no room or no page; a draft ends after a
        token whose chance is below `min_chance`.

        Tokens that the model has not computed yet are read first, in one step at most, so that
        answers are held up only briefly; a sequence with more of them gets no draft this time.
        """
        self.n_rounds, self.has_read = 0, False
        drafts = [_GrowingDraft(request.drafter, self._room(request)) for request in requests]
        going, rows = self._read([draft for draft in drafts if draft.max_tokens > 0])
        while going:
            going = [d for d, row in zip(going, rows, strict=True) if d.grow(row, min_chance)]
            rows = self._run([draft.next_rows() for draft in going])
        for draft in drafts:
            draft.drafter.note(draft.tokens, draft.likelihoods, draft.n_written)
        return [Draft(draft.tokens, draft.chances) for draft in drafts]

    def _room(self, request: DraftRequest) -> int:
        """Tokens that may be drafted. A sequence that cannot have all pages it needs gives back
        those it has and gets 0, as does one that has outgrown this model's context."""
        drafter, sequence, kv = request.drafter, request.drafter.sequence, self.kv
        drafter.follow(request.tokens)
        n_ahead = self._max_len - len(request.tokens)  # the last drafted token is never computed
        if n_ahead < 0 or (sequence.pages and not kv.can_grow(sequence)):
            drafter.leave()
            return 0
        max_tokens = min(drafter.max_tokens, request.max_tokens, n_ahead + 1)
        if max_tokens <= 0 or (sequence.pages and not sequence.n_pending):  # asked twice
            return 0
        if sequence.pages:
            kv.grow(sequence)
        elif not kv.admit(sequence, 0):
            return 0
        return 1 + kv.reserve(sequence, max_tokens - 1, 0)

    def _read(self, drafts: list[_GrowingDraft]) -> tuple[list[_GrowingDraft], list[LogitRow]]:
        """Computes pending tokens, as many as one step takes; returns the drafts whose sequences
        are computed to their ends, and the logits there."""
        self.has_read = any(d.sequence.n_computed < d.sequence.n_prompt for d in drafts)
        shares = fair_shares([d.sequence.n_pending for d in drafts], self._max_rows)
        chunks, ready = [], []
        for d, n in zip(drafts, shares, strict=True):
            n = self.kv.open_window(d.sequence, n, 0)
            first, is_last = d.sequence.n_computed, n == d.sequence.n_pending
            if n:
                tokens = d.sequence.tokens[first : first + n]
                chunks.append(_Rows(d.sequence, tokens, first, is_last))
            if is_last:
                ready.append(d)
        rows = self._run(chunks)
        for chunk in chunks:
            self.kv.note_computed(chunk.sequence, len(chunk.tokens))
        return ready, rows

    def _run(self, chunks: list[_Rows]) -> list[LogitRow]:
        """Runs one step; returns the likeliest token after each chunk that ends its sequence."""
        if not chunks:
            return []
        self.n_rounds += 1
        ends = np.cumsum([len(chunk.tokens) for chunk in chunks])
        logits_at = [end - 1 for end, chunk in zip(ends, chunks, strict=True) if chunk.is_last]
        copies, window_copies = page_copies(self.kv.take_copies())
        positions = [np.arange(c.first, c.first + len(c.tokens), dtype=np.int32) for c in chunks]
        return self.runner.run(
            Step(
                tokens=np.array([token for c in chunks for token in c.tokens], np.int32),
                positions=np.concatenate(positions),
                starts=np.concatenate([[0], ends]).astype(np.int32),
                pages=page_table([c.sequence.pages for c in chunks]),
                window_pages=page_table([c.sequence.window_pages for c in chunks]),
                logits_at=np.array(logits_at, np.int32),
                candidates=np.ones(len(logits_at), np.int32),
                copies=copies,
                window_copies=window_copies,
            )
        )

    def close(self) -> None:
        """Closes the model's runner."""
        self.runner.close()
