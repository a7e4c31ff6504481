"""Perplexity of a text, as llama-perplexity defines it.

The text's tokens are cut into windows, each read from an empty context. The first token of a window
is the one that begins texts, where the model wants one. Tokens of a window's second half count,
but for the very first of them: all are predicted from at least half a window.
(llama.cpp, tools/perplexity/perplexity.cpp)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from dllama.runner import Runner
from dllama.step import MAX_LOGIT_ROWS, NO_TABLES, PAGE_TOKENS, LogitRow, Step
from dllama.windows import ring_of_pages


def windows_of(ids: Sequence[int], width: int) -> list[Sequence[int]]:
    """Returns the whole windows of a text."""
    return [ids[i : i + width] for i in range(0, len(ids) - width + 1, width)]


@dataclass(frozen=True, slots=True)
class Estimate:
    """A perplexity, its standard error, and the windows and the counted tokens it comes from."""

    perplexity: float
    error: float
    n_windows: int
    n_tokens: int

    def to_json(self) -> dict[str, float]:
        return asdict(self)


class Perplexity:
    """Scores windows on one runner, one after the other."""

    def __init__(
        self, runner: Runner, *, bos_id: int | None, max_step_tokens: int,
        on_row: Callable[[LogitRow], None] = lambda row: None,
    ) -> None:  # fmt: skip
        """`on_row` hears of the logits of each token that counts, while they are valid."""
        self._runner, self._bos_id, self._max_step_tokens = runner, bos_id, max_step_tokens
        self._on_row = on_row
        self._losses: list[float] = []  # -log p of each counted token
        self._n_windows = 0

    def add(self, window: Sequence[int]) -> Estimate:
        """Scores a window; returns the estimate of all so far. Raises PeerLost."""
        for token, row in window_rows(
            self._runner, window, bos_id=self._bos_id, max_step_tokens=self._max_step_tokens
        ):
            self._losses.append(row.log_sum_exp - float(row.logits[token]))
            self._on_row(row)
        self._n_windows += 1
        losses = np.array(self._losses)
        perplexity, n = math.exp(losses.mean()), len(losses)
        error = perplexity * math.sqrt(losses.var() / (n - 1)) if n > 1 else 0.0
        return Estimate(perplexity, error, self._n_windows, n)


def window_rows(
    runner: Runner, window: Sequence[int], *, bos_id: int | None, max_step_tokens: int
) -> Iterator[tuple[int, LogitRow]]:
    """Yields each token of a window that counts, with the logits that it is predicted by; they are
    valid until the next one is asked for. Raises PeerLost."""
    counted, last = len(window) // 2, len(window) - 1
    read = list(window) if bos_id is None else [bos_id, *window[1:]]
    for start, end in _steps(counted, last, max_step_tokens):
        step = _step(read, start, end, runner.n_window_pages, wants_logits=start >= counted)
        for at, row in enumerate(runner.run(step), start=start):
            yield window[at + 1], row


def _steps(counted: int, last: int, max_step_tokens: int) -> list[tuple[int, int]]:
    """Returns the borders of the steps: tokens before the first counted one's predecessor are only
    read; of the others a step takes as many as it may ask logits for. Nothing is predicted from the
    last token."""
    wide, narrow = max_step_tokens, min(max_step_tokens, MAX_LOGIT_ROWS)
    first = [(at, min(at + wide, counted)) for at in range(0, counted, wide)]
    return first + [(at, min(at + narrow, last)) for at in range(counted, last, narrow)]


def _step(
    read: Sequence[int], start: int, end: int, n_window_pages: int, *, wants_logits: bool
) -> Step:
    n_pages = -(-len(read) // PAGE_TOKENS)
    window_pages = ring_of_pages(n_pages, n_window_pages)[None] if n_window_pages else NO_TABLES
    rows = np.arange(end - start, dtype=np.int32)
    wanted = rows if wants_logits else rows[:0]
    return Step(
        tokens=np.array(read[start:end], np.int32),
        positions=rows + np.int32(start),
        starts=np.array([0, len(rows)], np.int32),
        pages=np.arange(n_pages, dtype=np.int32)[None],
        logits_at=wanted,
        candidates=np.zeros_like(wanted),
        window_pages=window_pages,
    )
