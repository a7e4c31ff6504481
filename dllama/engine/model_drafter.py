"""Guesses how sequences go on with a second, small model of the same vocabulary.

Knows a Runner of its own and what is in its pages. Like any guess, these change when tokens are
computed, never which. It runs between the steps of the large model, on the engine's thread, and
is asked for all sequences at once: each guessed token is one ragged step for all of them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence as Many
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np

from dllama.engine.drafter import Draft, Drafter
from dllama.engine.fair_share import fair_shares
from dllama.engine.hit_rates import HitRates
from dllama.engine.kv_cache import KvCache
from dllama.engine.sequence import Sequence
from dllama.requests import SamplingParams, Submit
from dllama.runner import Runner
from dllama.step import PAGE_TOKENS, LogitRow, Step

DEFAULT_DRAFT = 8  # tokens of a guess: with the row before them a tile of eight, and one
MIN_CHANCE = 0.4  # of a token after those before it, where a request names none
N_LIKELIHOODS = 8  # classes of them, each as wide as the others
GREEDY = SamplingParams(temperature=0.0)


class Ask(NamedTuple):
    """At most `room` tokens that may follow `tokens`, which begin with those of the ask before."""

    drafter: ModelDrafter
    tokens: list[int]
    room: int


class ModelDrafter:
    """The guesses for one sequence, and the pages that the small model has of it."""

    def __init__(
        self, model: DraftModel, submit: Submit, lookup: Drafter, *, max_tokens: int,
        min_tokens: int = 0, min_chance: float = 0.0,
    ) -> None:  # fmt: skip
        """`lookup` guesses for nothing, and is asked first. A guess of the model has at most
        `max_tokens`, stops before a token less likely than `min_chance` after the one before it,
        and is none with fewer than `min_tokens`."""
        self.lookup = lookup
        self._model, self._min_tokens = model, min_tokens
        self.max_tokens, self.min_chance = max_tokens, min_chance or MIN_CHANCE
        plain = replace(submit, sampling=GREEDY, grammar=None, session_id=None, context_shift=False)
        # What the small model knows of the sequence: the same tokens, computed less far.
        self.sequence = Sequence.from_submit(plain, model.vocab_size, 0.0)
        # At first what the model says. A small one that is half sure may be right nearly always,
        # where the large one takes the likeliest token, or seldom, where it draws by chance.
        self.rates = HitRates((i + 0.5) / N_LIKELIHOODS for i in range(N_LIKELIHOODS))
        self._guess: list[tuple[int, float]] = []  # tokens and likelihoods guessed last,
        self._n_known = 0  # behind so many tokens; the keys and values of
        self._n_written = 0  # so many of them are in the pages

    def guess(self, tokens: list[int], room: int) -> Draft:
        """A guess for this sequence alone."""
        [draft] = self._model.guess([Ask(self, tokens, room)])
        return draft

    def trimmed(self, draft: list[int]) -> list[int]:
        """The draft, or none where it has become too short."""
        return draft if len(draft) >= self._min_tokens else []

    def leave(self) -> None:
        """Gives all pages back; what is in them is found again as long as they are not needed."""
        self._model.kv.leave(self.sequence)
        self._n_written = 0

    def follow(self, tokens: list[int]) -> None:
        """The sequence has become so long. Guesses that came true are computed already; the next
        ones are written over the others. The last token is computed again: its logits are gone."""
        sequence = self.sequence
        sequence.tokens = tokens
        n_right = self._learn(tokens)
        if self._n_written:
            n = min(n_right, self._n_written, sequence.n_pending - 1)
            self._model.kv.note_computed(sequence, max(0, n))
        self._guess, self._n_written = [], 0

    def note(self, tokens: list[int], likelihoods: list[float], n_written: int) -> None:
        """These were guessed, whether they will be checked or not."""
        self._guess = list(zip(tokens, likelihoods, strict=True))
        self._n_known, self._n_written = len(self.sequence.tokens), n_written

    def _learn(self, tokens: list[int]) -> int:
        """Compares the last guess with what came, up to the first difference: how far it was."""
        came = tokens[self._n_known : self._n_known + len(self._guess)]
        for i, token in enumerate(came):
            guessed, likelihood = self._guess[i]
            self.rates.learn(_class_of(likelihood), token == guessed)
            if token != guessed:
                return i
        return len(came)


def _class_of(likelihood: float) -> int:
    return min(int(likelihood * N_LIKELIHOODS), N_LIKELIHOODS - 1)


@dataclass(slots=True)
class _Try:
    """A guess as it grows."""

    drafter: ModelDrafter
    n_most: int
    tokens: list[int] = field(default_factory=list)
    likelihoods: list[float] = field(default_factory=list)  # each after those before it
    chances: list[float] = field(default_factory=list)
    n_written: int = 0

    @property
    def sequence(self) -> Sequence:
        return self.drafter.sequence

    def grow(self, row: LogitRow, worth: float) -> bool:
        """Takes the likeliest token if it is likely enough; whether another is wanted behind."""
        assert row.ids is not None  # candidates were asked for
        likelihood = math.exp(float(row.logits[0]) - row.log_sum_exp)
        if not likelihood >= self.drafter.min_chance:  # also where logits are no numbers
            return False
        rate = self.drafter.rates.of(_class_of(likelihood))
        self.tokens.append(int(row.ids[0]))
        self.likelihoods.append(likelihood)
        self.chances.append(rate * (self.chances[-1] if self.chances else 1.0))
        return len(self.tokens) < self.n_most and self.chances[-1] >= worth

    def next_rows(self) -> _Rows:
        """The token guessed last, behind those known and guessed before."""
        first = len(self.sequence.tokens) + len(self.tokens) - 1
        self.n_written += 1
        return _Rows(self.sequence, self.tokens[-1:], first, is_last=True)


class _Rows(NamedTuple):
    """Tokens of a sequence for one step, and whether the logits behind them are wanted."""

    sequence: Sequence
    tokens: list[int]
    first: int
    is_last: bool


class DraftModel:
    """The small model of one engine, and what is in its pages."""

    def __init__(self, runner: Runner, *, max_tokens: int = DEFAULT_DRAFT, max_rows: int) -> None:
        """Guesses have at most `max_tokens`; steps of the runner at most `max_rows`."""
        self.runner, self._max_rows = runner, max_rows
        self.max_tokens = max_tokens
        self._max_len = min(runner.config.max_seq_len, runner.n_pages * PAGE_TOKENS)
        self.kv = KvCache(runner.n_pages, self._max_len)
        self.n_rounds = 0  # steps that the last guesses took
        self.has_read = False  # whether prompts were read on the way

    @property
    def vocab_size(self) -> int:
        return self.runner.config.vocab_size

    def guess(self, asks: Many[Ask], worth: float = 0.0) -> list[Draft]:
        """A guess, mostly none where there is no room or page for it, for each of the sequences;
        none goes on behind a token whose chance is less than `worth`.

        What the model has not seen yet is read first, in no more than one step, so that no answer
        is held up for long; who is not at the end then gets no guess this time.
        """
        self.n_rounds, self.has_read = 0, False
        tries = [_Try(ask.drafter, self._room(ask)) for ask in asks]
        going, rows = self._read([t for t in tries if t.n_most > 0])
        while going:
            going = [t for t, row in zip(going, rows, strict=True) if t.grow(row, worth)]
            rows = self._run([t.next_rows() for t in going])
        for t in tries:
            t.drafter.note(t.tokens, t.likelihoods, t.n_written)
        return [Draft(t.tokens, t.chances) for t in tries]

    def _room(self, ask: Ask) -> int:
        """Tokens that may be guessed, 0 without pages: a sequence that cannot have all it needs
        gives back what it has, and one that outgrew the small model's context for good."""
        drafter, sequence, kv = ask.drafter, ask.drafter.sequence, self.kv
        drafter.follow(ask.tokens)
        n_ahead = self._max_len - len(ask.tokens)  # behind the newest; one more is never computed
        if n_ahead < 0 or (sequence.pages and kv.n_missing(sequence) > kv.pool.n_free):
            drafter.leave()
            return 0
        n_most = min(drafter.max_tokens, ask.room, n_ahead + 1)
        if n_most <= 0 or (sequence.pages and not sequence.n_pending):  # asked twice
            return 0
        if sequence.pages:
            kv.grow(sequence)
        elif not kv.admit(sequence, 0):
            return 0
        return 1 + kv.reserve(sequence, n_most - 1, 0)

    def _read(self, tries: list[_Try]) -> tuple[list[_Try], list[LogitRow]]:
        """Computes what is not computed yet, as far as one step goes: who has come to the end, and
        the logits of what comes next there."""
        self.has_read = any(t.sequence.n_computed < t.sequence.n_prompt for t in tries)
        shares = fair_shares([t.sequence.n_pending for t in tries], self._max_rows)
        chunks, ready = [], []
        for t, n in zip(tries, shares, strict=True):
            first, is_last = t.sequence.n_computed, n == t.sequence.n_pending
            if n:
                tokens = t.sequence.tokens[first : first + n]
                chunks.append(_Rows(t.sequence, tokens, first, is_last))
            if is_last:
                ready.append(t)
        rows = self._run(chunks)
        for chunk in chunks:
            self.kv.note_computed(chunk.sequence, len(chunk.tokens))
        return ready, rows

    def _run(self, chunks: list[_Rows]) -> list[LogitRow]:
        """One step; the likeliest token behind each chunk that is the last of its sequence."""
        if not chunks:
            return []
        self.n_rounds += 1
        ends = np.cumsum([len(chunk.tokens) for chunk in chunks])
        logits_at = [end - 1 for end, chunk in zip(ends, chunks, strict=True) if chunk.is_last]
        pages = np.full((len(chunks), max(len(c.sequence.pages) for c in chunks)), -1, np.int32)
        for row, chunk in enumerate(chunks):
            pages[row, : len(chunk.sequence.pages)] = chunk.sequence.pages
        positions = [np.arange(c.first, c.first + len(c.tokens), dtype=np.int32) for c in chunks]
        return self.runner.run(
            Step(
                tokens=np.array([token for c in chunks for token in c.tokens], np.int32),
                positions=np.concatenate(positions),
                starts=np.concatenate([[0], ends]).astype(np.int32),
                pages=pages,
                logits_at=np.array(logits_at, np.int32),
                candidates=np.ones(len(logits_at), np.int32),
            )
        )

    def close(self) -> None:
        self.runner.close()
