"""A step as the kernels read it, and its cut into groups of rows."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from dllama.step import PAGE_TOKENS, Step
from kernels.recurrent.states import Slots


@dataclass(frozen=True, slots=True)
class Rows:
    """A step as the kernels read it: contiguous int32 arrays, and each row's page."""

    n: int  # T
    starts: np.ndarray  # (S + 1,)
    positions: np.ndarray  # (T,)
    pages: np.ndarray  # (S, max_pages)
    row_pages: np.ndarray  # (T,)
    logits_at: np.ndarray  # (R,)
    hidden_at: np.ndarray  # (H,)
    slots: Slots  # of states

    @property
    def wanted(self) -> np.ndarray:
        """The rows whose last states are read, in rising order. Not for short steps, all rows of
        which are computed to the end."""
        return np.union1d(self.logits_at, self.hidden_at)


def rows_of(step: Step) -> Rows:
    """The rows of a step."""
    positions = np.ascontiguousarray(step.positions, np.int32)
    starts = np.ascontiguousarray(step.starts, np.int32)
    pages = np.ascontiguousarray(step.pages, np.int32)
    logits_at = np.ascontiguousarray(step.logits_at, np.int32)
    sequence = np.arange(len(starts) - 1)
    if len(sequence) < step.n_tokens:
        sequence = np.repeat(sequence, np.diff(starts))
    row_pages = np.ascontiguousarray(pages[sequence, positions // PAGE_TOKENS])
    return Rows(
        step.n_tokens, starts, positions, pages, row_pages, logits_at, step.hidden_at,
        _slots_of(step),
    )  # fmt: skip


def _slots_of(step: Step) -> Slots:
    kept = np.full(step.n_tokens, -1, np.int32)
    if len(step.slots) == 0:
        own = np.arange(len(step.starts) - 1, dtype=np.int32)
        return Slots(own, own, kept)
    kept[step.kept[:, 0]] = step.kept[:, 1]
    return Slots(
        np.ascontiguousarray(step.slots[:, 0]), np.ascontiguousarray(step.slots[:, 1]), kept
    )


def split(rows: Rows, n_groups: int) -> list[tuple[int, Rows]]:
    """Cuts a step's rows into groups of about one size; returns the first row of each and the group
    as a step of its own that wants no logits, but their rows' last states."""
    wanted = rows.wanted
    edges = [rows.n * i // n_groups for i in range(n_groups + 1)]
    groups = []
    for first, end in pairwise(edges):
        part = slice(first, end)
        begin = int(np.searchsorted(rows.starts, first, "right")) - 1
        stop = int(np.searchsorted(rows.starts, end, "left"))
        starts = np.clip(rows.starts[begin : stop + 1], first, end) - np.int32(first)
        inside = wanted[(wanted >= first) & (wanted < end)] - first
        sources, targets = rows.slots.sources[begin:stop].copy(), rows.slots.targets[begin:stop]
        if rows.starts[begin] < first:  # goes on from what the group before has left
            sources[0] = targets[0]
        group = Rows(
            end - first, starts, rows.positions[part], rows.pages[begin:stop],
            rows.row_pages[part], rows.logits_at[:0], inside,
            Slots(sources, targets, rows.slots.copies[part]),
        )  # fmt: skip
        groups.append((first, group))
    return groups
