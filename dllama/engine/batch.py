"""A step as the scheduler sees it (chunks of sequences), and as the ranks see it (arrays)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from dllama.engine.sequence import Sequence
from dllama.kv_shift import KvShift
from dllama.step import Step


class Chunk(NamedTuple):
    """The next `n` tokens of a sequence and, behind its last, `draft`: a guess at what follows."""

    sequence: Sequence
    n: int
    draft: list[int] | tuple[()] = ()

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

    @property
    def n_drafted(self) -> int:
        """Rows that are guesses."""
        return sum(len(chunk.draft) for chunk in self.chunks)

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
            sequence, n, draft = chunk
            begin = sequence.n_computed
            tokens += sequence.tokens[begin : begin + n]
            tokens += draft
            first = begin - sequence.n_dropped
            positions += range(first, first + n + len(draft))
            starts.append(len(tokens))
            pages[row, : len(sequence.pages)] = sequence.pages
            if sequence.pooler is not None:
                hidden_at += range(starts[-2], starts[-1])
            elif chunk.is_last:
                logits_at += range(len(tokens) - 1 - len(draft), len(tokens))
                candidates += [sequence.n_candidates] * (1 + len(draft))
        return Step(
            tokens=np.array(tokens, np.int32),
            positions=np.array(positions, np.int32),
            starts=np.array(starts, np.int32),
            pages=pages,
            logits_at=np.array(logits_at, np.int32),
            candidates=np.array(candidates, np.int32),
            hidden_at=np.array(hidden_at, np.int32),
        )
