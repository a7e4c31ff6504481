"""A step as the scheduler sees it (chunks of sequences), and as the ranks see it (arrays)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from dllama.engine.sequence import Sequence
from dllama.kv_shift import KvShift
from dllama.step import Step


class Chunk(NamedTuple):
    """The next `n` tokens of a sequence."""

    sequence: Sequence
    n: int

    @property
    def is_last(self) -> bool:
        """Whether the chunk ends with the sequence's last token, so that a new one is drawn."""
        return self.n == self.sequence.n_pending

    @property
    def n_decode(self) -> int:
        """Rows that continue an answer, rather than (again) compute what is known: 1 or 0."""
        sequence = self.sequence
        return int(self.n == 1 and sequence.n_computed >= sequence.n_prompt)


@dataclass(frozen=True, slots=True)
class Batch:
    """The chunks of one step, those of one token first."""

    chunks: list[Chunk]
    shifts: list[KvShift] = field(default_factory=list)  # to be done before the step, in order

    def to_step(self) -> Step:
        """The arrays of the step; they share no memory with the sequences."""
        tokens: list[int] = []
        positions: list[int] = []
        starts = [0]
        logits_at: list[int] = []
        candidates: list[int] = []
        hidden_at: list[int] = []
        n_pages = max(len(chunk.sequence.pages) for chunk in self.chunks)
        pages = np.full((len(self.chunks), n_pages), -1, np.int32)
        for row, chunk in enumerate(self.chunks):
            sequence, n = chunk
            begin = sequence.n_computed
            tokens += sequence.tokens[begin : begin + n]
            positions += range(begin - sequence.n_dropped, begin - sequence.n_dropped + n)
            starts.append(len(tokens))
            pages[row, : len(sequence.pages)] = sequence.pages
            if sequence.pooler is not None:
                hidden_at += range(starts[-2], starts[-1])
            elif chunk.is_last:
                logits_at.append(len(tokens) - 1)
                candidates.append(sequence.n_candidates)
        return Step(
            tokens=np.array(tokens, np.int32),
            positions=np.array(positions, np.int32),
            starts=np.array(starts, np.int32),
            pages=pages,
            logits_at=np.array(logits_at, np.int32),
            candidates=np.array(candidates, np.int32),
            hidden_at=np.array(hidden_at, np.int32),
        )
