"""Half layers and the head as they were computed before, for steps of few rows: those are so short
that finding out what to call would take longer than many a kernel.

A half layer of a step calls the same kernels with the same arrays as that of any other step with as
many rows, sequences and wanted logits. Recording takes some 0.2 ms a kernel, so that it is done
where several such steps have followed each other; later ones are replayed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any

import numpy as np

from dllama.runtime.weights import Weights
from kernels.program import Program, recording

FEW_ROWS = 8  # of a step that is recorded: with more, computing takes long enough
ALIKE_BEFORE = 3  # steps that follow each other, before one is recorded

Shape = tuple[int, int, int]  # rows, sequences, rows of logits


class Replays:
    """What one rank has recorded. Steps come one after the other: `settled`, `begin`, then `run`
    for every half layer, and for the head if logits are wanted."""

    def __init__(self, weights: Weights, max_pages: int) -> None:
        """`max_pages` are those of the longest sequence."""
        parts = chain.from_iterable((w.qkv, w.wo, w.gate_up, w.w2) for w in weights.layers)
        # A rank without heads or columns writes zeros instead, and that is no kernel's work.
        self._max_rows = FEW_ROWS if all(part is not None for part in parts) else 0
        self.alike_before = ALIKE_BEFORE
        self._n_halves = 2 * len(weights.layers)
        self._starts = np.zeros(FEW_ROWS + 1, np.int32)
        self._positions, self._row_pages = np.zeros((2, FEW_ROWS), np.int32)
        self._pages = np.zeros((FEW_ROWS, max_pages), np.int32)
        self._programs: dict[Shape, list[Program]] = {}
        self._shape: Shape = (0, 0, 0)
        self._n_alike = 0  # steps of that shape so far
        self._is_settled = False
        self._playing: Sequence[Program] | None = None
        self._recorded: list[Program] | None = None
        self._next = 0

    def is_few(self, n_rows: int) -> bool:
        """Whether steps of so many rows may be replayed, and keep to arrays that stay."""
        return n_rows <= self._max_rows

    def settled(
        self, starts: np.ndarray, positions: np.ndarray, pages: np.ndarray, row_pages: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """The same, of a step of few rows in arrays that stay where they are."""
        n, width = len(positions), pages.shape[1]
        self._is_settled = self.is_few(n) and width <= self._pages.shape[1]
        if not self._is_settled:
            return starts, positions, pages, row_pages
        kept = (
            self._starts[: len(starts)], self._positions[:n], self._pages[: len(pages)],
            self._row_pages[:n],
        )  # fmt: skip
        kept[0][:], kept[1][:], kept[3][:] = starts, positions, row_pages
        kept[2][:, :width] = pages
        return kept

    def begin(self, n_rows: int, n_sequences: int, n_wanted: int) -> None:
        """A step begins, after `settled`."""
        shape = (n_rows, n_sequences, n_wanted)
        self._n_alike = self._n_alike + 1 if shape == self._shape else 1
        self._shape, self._next, self._recorded = shape, 0, None
        self._playing = self._programs.get(self._shape) if self._is_settled else None
        if self._playing is None and self._is_settled and self._n_alike > self.alike_before:
            self._recorded = []

    def run(self, work: Callable[..., None], *args: Any) -> None:
        """Does the next piece of the step, as it was recorded or by `work(*args)`."""
        if self._playing is not None:
            self._playing[self._next].run()
            self._next += 1
        elif self._recorded is not None:
            with recording() as calls:
                work(*args)
            self._recorded.append(Program(calls))
            if len(self._recorded) == self._n_halves + (self._shape[2] > 0):
                self._programs[self._shape] = self._recorded
        else:
            work(*args)
