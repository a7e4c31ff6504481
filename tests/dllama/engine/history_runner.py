"""A runner whose logits are a hash of the whole history that it finds in its pages.

It keeps, per page and slot, a state that depends on all states before it, as keys and values do,
and at which position it is. A wrong page, position, start or a lost prefix therefore changes every
token that follows, or fails an assertion here. `expected_answer` is the same model without pages,
steps or an engine.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from dllama.config import ModelConfig
from dllama.engine.sampling.sampler import Sampler
from dllama.errors import PeerLost, SessionFileError
from dllama.kv import KvHeld, KvShift
from dllama.requests import FinishReason, Submit
from dllama.step import MAX_CANDIDATES, MAX_LOGIT_ROWS, PAGE_TOKENS, LogitRow, Step
from tests.fixed_nodes import FixedNodes


def next_state(states: np.ndarray, token: int) -> int:
    """What stands for the keys and values of a token behind others: it depends on all of theirs,
    states (n,) int64, and on their order."""
    data = states.tobytes() + int(token).to_bytes(4, "little")
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little", signed=True)


def state_logits(state: int, vocab_size: int) -> np.ndarray:
    """Logits (vocab_size,) float32 that a token's state decides."""
    rng = np.random.default_rng(state & (2**64 - 1))
    return (rng.standard_normal(vocab_size) * 2.0).astype(np.float32)


def logit_row(logits: np.ndarray, n_candidates: int) -> LogitRow:
    """The row as a runner hands it over: whole for 0, else its largest entries."""
    top = float(logits.max())
    log_sum_exp = top + float(np.log(np.exp(logits.astype(np.float64) - top).sum()))
    if n_candidates == 0:
        return LogitRow(None, logits, log_sum_exp)
    ids = np.lexsort((np.arange(len(logits)), -logits))[:n_candidates].astype(np.int32)
    return LogitRow(ids, logits[ids], log_sum_exp)


def history_config(vocab_size: int = 97, max_seq_len: int = 1000) -> ModelConfig:
    return ModelConfig(
        arch="llama",
        name="history",
        dim=1,
        hidden_dim=1,
        n_layers=1,
        n_heads=1,
        n_kv_heads=1,
        head_dim=1,
        vocab_size=vocab_size,
        max_seq_len=max_seq_len,
        norm_epsilon=1e-5,
        rope_theta=1e4,
    )


class HistoryRunner(FixedNodes):
    """Satisfies dllama.runner.Runner. Loses a node before the steps numbered in `lose_at`, and
    then fails to recover `n_failures` times."""

    def __init__(
        self,
        *,
        n_pages: int = 64,
        vocab_size: int = 97,
        max_seq_len: int = 1000,
        lose_at: Sequence[int] = (),
        n_failures: int = 0,
    ) -> None:
        self._config = history_config(vocab_size, max_seq_len)
        self._n_pages = n_pages
        self._lose_at = set(lose_at)
        self._n_failures = n_failures
        self.states = np.full((n_pages, PAGE_TOKENS), -1, np.int64)  # what its pages hold
        self._positions = np.full((n_pages, PAGE_TOKENS), -1, np.int64)
        self.step_sizes: list[list[int]] = []  # rows of each sequence, step by step
        self.n_shifts = self.n_copies = 0
        self._hidden = np.zeros((0, 1), np.float32)
        self.idle_at: list[int] = []  # how many steps there had been, at each `idle`
        self.is_lost = False
        self.change: str | None = None
        self.is_closed = False

    @property
    def config(self) -> ModelConfig:
        return self._config

    @property
    def n_pages(self) -> int:
        return self._n_pages

    @property
    def n_window_pages(self) -> int:
        return 0

    def run(self, step: Step) -> list[LogitRow]:
        if len(self.step_sizes) in self._lose_at:
            self._lose_at.remove(len(self.step_sizes))
            self.lose()
        self._refuse_lost()
        check_step(step, self._n_pages, self._config.vocab_size)
        for source, target in step.copies.tolist():
            self.states[target] = self.states[source]
            self._positions[target] = self._positions[source]
            self.n_copies += 1
        starts = step.starts.tolist()
        self.step_sizes.append([b - a for a, b in pairwise(starts)])
        states = [self.compute(step, row) for row in range(step.n_tokens)]
        told = [[float(states[row] % 1000)] for row in step.hidden_at.tolist()]
        self._hidden = np.array(told, np.float32).reshape(-1, 1)
        return [
            logit_row(state_logits(states[row], self._config.vocab_size), n)
            for row, n in zip(step.logits_at.tolist(), step.candidates.tolist(), strict=True)
        ]

    def shift(self, shift: KvShift) -> None:
        self._refuse_lost()
        self.n_shifts += 1
        check_shift(shift, self._n_pages)
        positions = self._read(self._positions, shift.from_pages, shift.n_tokens)
        assert np.array_equal(positions, np.arange(shift.n_tokens)), "the pages hold other tokens"
        states = self._read(self.states, shift.from_pages, shift.n_tokens)
        states = np.delete(states, np.arange(shift.n_keep, shift.n_keep + shift.n_drop))
        for position in range(shift.n_keep // PAGE_TOKENS * PAGE_TOKENS, len(states)):
            place = shift.to_pages[position // PAGE_TOKENS], position % PAGE_TOKENS
            self.states[place], self._positions[place] = states[position], position

    def lose(self) -> None:
        """A node goes, and all KV with it."""
        self.is_lost = True
        self.states[:] = self._positions[:] = -1

    def shrink(self, n_pages: int) -> None:
        """Comes back with so few pages."""
        self._n_pages = n_pages
        self.states, self._positions = self.states[:n_pages], self._positions[:n_pages]

    @property
    def weight_bytes(self) -> int:
        return 0

    @property
    def hidden(self) -> np.ndarray:
        return self._hidden

    def counters(self) -> dict[str, int]:
        return {"compute_ns": 0, "wait_ns": 0, "network_ns": 0}

    @property
    def fingerprint(self) -> bytes:
        return bytes(32)

    def save_kv(self, name: str, held: KvHeld, stamp: bytes) -> int:
        raise SessionFileError("this runner has no files")

    def load_kv(self, name: str, held: KvHeld, stamp: bytes) -> int:
        raise SessionFileError("this runner has no files")

    def idle(self) -> None:
        self.idle_at.append(len(self.step_sizes))
        self._refuse_lost()

    @property
    def pending_change(self) -> str | None:
        return self.change

    def recover(self) -> None:
        if self._n_failures:
            self._n_failures -= 1
            self._refuse_lost()
        self.lose()
        self.is_lost, self.change = False, None

    def stats(self) -> list[dict[str, object]]:
        self._refuse_lost()
        return [{"rank": 0, "host": "here", "threads": 1}]

    def close(self) -> None:
        self.is_closed = True

    def _refuse_lost(self) -> None:
        if self.is_lost:
            raise PeerLost("the worker 10.0.0.9:9998 left", rank=1, host="10.0.0.9:9998")

    def compute(self, step: Step, row: int) -> int:
        sequence = int(np.searchsorted(step.starts, row, side="right")) - 1
        pages, position = step.pages[sequence], int(step.positions[row])
        page = pages[position // PAGE_TOKENS]
        assert page >= 0, f"row {row} has no page for position {position}"
        assert np.array_equal(self._read(self._positions, pages, position), np.arange(position)), (
            "the pages do not hold the history"
        )
        state = next_state(self._read(self.states, pages, position), step.tokens[row])
        self.states[page, position % PAGE_TOKENS] = state
        self._positions[page, position % PAGE_TOKENS] = position
        return state

    @staticmethod
    def _read(values: np.ndarray, pages: np.ndarray, n: int) -> np.ndarray:
        found: np.ndarray = values[pages[: -(-n // PAGE_TOKENS)]].ravel()[:n]
        return found


def check_shift(shift: KvShift, n_pages: int) -> None:
    """What any runner may take for granted of a shift."""
    n_after = shift.n_tokens - shift.n_drop
    assert shift.n_keep >= 0 and 0 < shift.n_drop <= shift.n_tokens - shift.n_keep
    assert len(shift.from_pages) == -(-shift.n_tokens // PAGE_TOKENS)
    assert len(shift.to_pages) == -(-n_after // PAGE_TOKENS)
    for pages in (shift.from_pages, shift.to_pages):
        assert pages.dtype == np.int32 and len(set(pages.tolist())) == len(pages)
        assert np.all((pages >= 0) & (pages < n_pages))
    for i, page in enumerate(shift.to_pages):
        if i < shift.n_keep // PAGE_TOKENS:
            assert page == shift.from_pages[i], "kept tokens stay where they are"
        assert page == shift.from_pages[i] or page not in shift.from_pages


def check_step(step: Step, n_pages: int, vocab_size: int) -> None:
    """What any runner may take for granted of a step."""
    for array in (step.tokens, step.positions, step.starts, step.logits_at, step.candidates):
        assert array.dtype == np.int32 and array.ndim == 1
    assert step.pages.dtype == np.int32 and step.pages.ndim == 2
    assert len(step.tokens) == len(step.positions) == step.starts[-1] > 0
    assert step.starts[0] == 0 and np.all(np.diff(step.starts) > 0)
    assert len(step.pages) == len(step.starts) - 1
    assert np.all((step.tokens >= 0) & (step.tokens < vocab_size))
    rows = np.repeat(np.arange(len(step.pages)), np.diff(step.starts))
    written = set(zip(rows.tolist(), (step.positions // PAGE_TOKENS).tolist(), strict=True))
    for row, place in written:
        page = step.pages[row, place]
        assert np.count_nonzero(step.pages == page) == 1, "a page that others read is written"
    assert np.all(step.pages < n_pages)
    assert step.copies.dtype == np.int32 and step.copies.shape[1:] == (2,)
    assert np.all((step.copies >= 0) & (step.copies < n_pages))
    for begin, end in pairwise(step.starts.tolist()):
        assert np.all(np.diff(step.positions[begin:end]) == 1)
    assert len(step.logits_at) == len(step.candidates)
    assert len(step.logits_at) <= MAX_LOGIT_ROWS and np.all(np.diff(step.logits_at) > 0)
    is_wanted = np.isin(np.arange(step.n_tokens), step.logits_at)
    for begin, end in pairwise(step.starts.tolist()):  # nothing is wanted before what is not
        assert np.all(np.diff(is_wanted[begin:end].astype(int)) >= 0), "only last rows are wanted"
    assert np.all((step.candidates >= 0) & (step.candidates <= MAX_CANDIDATES))


@dataclass(frozen=True)
class Answer:
    tokens: list[int]
    finish: FinishReason | None


def expected_answer(submit: Submit, config: ModelConfig, n_pages: int) -> Answer:
    """What a request is answered when nothing else happens in the world."""
    max_len = min(config.max_seq_len, n_pages * PAGE_TOKENS)
    n_keep = len(submit.tokens) if submit.n_keep == -1 else submit.n_keep
    n_keep = min(n_keep, max_len - 4)
    tokens, n_most = list(submit.tokens), submit.max_tokens
    if submit.context_shift:
        while len(tokens) >= max_len:
            del tokens[n_keep : n_keep + (max_len - n_keep) // 2]
        n_most = n_most or max_len
    answer: list[int] = []
    states = np.zeros(0, np.int64)
    for token in tokens:
        states = np.append(states, next_state(states, token))
    sampler = Sampler(submit.sampling, config.vocab_size)
    while True:
        row = logit_row(state_logits(int(states[-1]), config.vocab_size), 0)
        token, _ = sampler.choose(row, tokens)
        if token in submit.stop_ids:
            return Answer(answer, FinishReason.STOP)
        tokens.append(token)
        answer.append(token)
        if len(answer) == n_most or (len(states) == max_len - 1 and not submit.context_shift):
            return Answer(answer, FinishReason.LENGTH)
        if len(states) == max_len - 1:
            states = np.delete(states, np.s_[n_keep : n_keep + (len(states) - n_keep) // 2])
        states = np.append(states, next_state(states, token))
