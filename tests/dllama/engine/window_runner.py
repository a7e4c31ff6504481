"""A HistoryRunner whose only layer has a window: beside the states of all tokens it keeps those
that the window's pages hold, and finds in them what a row sees, or fails an assertion."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from dllama.config import LayerAttention
from dllama.kv import KvShift
from dllama.step import PAGE_TOKENS, LogitRow, Step
from dllama.windows import window_pages
from tests.dllama.engine.history_runner import HistoryRunner


class WindowRunner(HistoryRunner):
    """Satisfies dllama.runner.Runner; `max_step_tokens` are those of its steps."""

    def __init__(
        self, window: int, *, n_pages: int = 64, max_step_tokens: int = 256,
        max_seq_len: int = 1000, n_window_pages: int | None = None, lose_at: Sequence[int] = (),
    ) -> None:  # fmt: skip
        super().__init__(n_pages=n_pages, max_seq_len=max_seq_len, lose_at=lose_at)
        layers = (LayerAttention(window=window),)
        self._config = replace(self._config, attention_layers=layers)
        planned = window_pages(self._config, n_pages, max_step_tokens)
        self._n_window_pages = n_window_pages or planned
        self.near = np.full((self._n_window_pages, PAGE_TOKENS), -1, np.int64)

    @property
    def n_window_pages(self) -> int:
        return self._n_window_pages

    def run(self, step: Step) -> list[LogitRow]:
        for source, target in step.window_copies.tolist():
            self.near[target] = self.near[source]
        rows = np.repeat(np.arange(len(step.pages)), np.diff(step.starts))
        places = (step.positions // PAGE_TOKENS).tolist()
        for row, place in set(zip(rows.tolist(), places, strict=True)):
            page = step.window_pages[row, place]
            assert np.count_nonzero(step.window_pages == page) == 1, "a page of others is written"
        return super().run(step)

    def compute(self, step: Step, row: int) -> int:
        state = super().compute(step, row)
        sequence = int(np.searchsorted(step.starts, row, side="right")) - 1
        position, pages = int(step.positions[row]), step.window_pages[sequence]
        first = max(0, position - self._config.window + 1)
        seen = np.arange(first, position)
        held = pages[seen // PAGE_TOKENS]
        assert np.all(held >= 0), f"row {row} sees a page that is gone"
        whole = self._read(self.states, step.pages[sequence], position)
        assert np.array_equal(self.near[held, seen % PAGE_TOKENS], whole[first:]), "others' tokens"
        assert pages[position // PAGE_TOKENS] >= 0
        self.near[pages[position // PAGE_TOKENS], position % PAGE_TOKENS] = state
        return state

    def shift(self, shift: KvShift) -> None:
        """In place and upwards, as the kernel does it."""
        super().shift(shift)
        n_after = shift.n_tokens - shift.n_drop
        for position in range(shift.n_keep // PAGE_TOKENS * PAGE_TOKENS, n_after):
            origin = position if position < shift.n_keep else position + shift.n_drop
            source = shift.from_window_pages[origin // PAGE_TOKENS]
            target = shift.to_window_pages[position // PAGE_TOKENS]
            if source >= 0 and target >= 0:
                self.near[target, position % PAGE_TOKENS] = self.near[source, origin % PAGE_TOKENS]

    def lose(self) -> None:
        super().lose()
        self.near[:] = -1
