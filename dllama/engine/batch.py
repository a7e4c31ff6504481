"""A step as the scheduler makes it (chunks of sequences), as the ranks compute it (arrays), and the
tokens sampled from its logits."""

from __future__ import annotations

from collections.abc import Sequence as Many
from dataclasses import dataclass, field
from itertools import islice
from typing import NamedTuple

import numpy as np

from dllama.engine.sequence import Sequence
from dllama.kv import KvShift
from dllama.requests import FinishReason
from dllama.step import NO_TABLES, LogitRow, Step


class Chunk(NamedTuple):
    """The next `n` tokens of a sequence and, after its last, those of a `draft`."""

    sequence: Sequence
    n: int
    draft: list[int] | tuple[()] = ()

    @property
    def is_last(self) -> bool:
        """Whether the chunk ends with the sequence's last token, so that a new one is sampled."""
        return self.n == self.sequence.n_pending

    @property
    def n_decode(self) -> int:
        """1 for a row that continues an answer; 0 for prompts and for what is computed again."""
        sequence = self.sequence
        return int(self.n == 1 and sequence.n_computed >= sequence.n_prompt)

    def sample(self, rows: list[LogitRow], max_len: int) -> Result:
        """Samples a token from the first row, and from each further row while the tokens before
        equal the draft: the rows after another token were computed in vain."""
        tokens = []
        for i, row in enumerate(rows):
            sampled = self.sequence.sample(row, max_len)
            if sampled.token is not None:
                tokens.append(sampled.token)
            is_end = sampled.finish is not None or i == len(self.draft)
            if is_end or sampled.token != self.draft[i]:
                break
        return Result(tokens, i, sampled.finish, sampled.error)

    def pool(self, states: np.ndarray) -> Result | None:
        """Pools the states (n, dim) of the chunk's rows; the vector after the last chunk."""
        sequence, is_last = self.sequence, self.is_last
        assert sequence.pooler is not None
        sequence.pooler.take(sequence.n_computed, states)
        if not is_last:
            return None
        vector = sequence.pooler.vector().astype("<f4").tobytes()
        return Result([], finish=FinishReason.STOP, embedding=vector)


@dataclass(frozen=True, slots=True)
class Result:
    """What a chunk that ends its sequence's tokens gave: the tokens sampled from its rows, or the
    pooled states; and whether the sequence ends with them."""

    tokens: list[int]
    n_accepted: int = 0  # rows of the draft whose tokens came
    finish: FinishReason | None = None
    error: str | None = None
    embedding: bytes | None = None


def page_table(pages: Many[Many[int]]) -> np.ndarray:
    """The pages of each sequence as rows of a table, (S, the most of one) int32; -1 after them."""
    table = np.full((len(pages), max(map(len, pages))), -1, np.int32)
    for row, its_pages in zip(table, pages, strict=True):
        row[: len(its_pages)] = its_pages
    return table if table.size else NO_TABLES


def page_copies(copies: list[list[tuple[int, int]]]) -> list[np.ndarray]:
    """Copies of pages of each kind, (C, 2) int32 from and to."""
    return [np.array(pairs, np.int32).reshape(-1, 2) for pairs in copies]


@dataclass(frozen=True, slots=True)
class Batch:
    """The chunks of one step, those of one token first."""

    chunks: list[Chunk]
    shifts: list[KvShift] = field(default_factory=list)  # to be done before the step, in this order
    copies: list[list[tuple[int, int]]] = field(default_factory=lambda: [[], []])
    # of pages, and of those of layers with a window: see Step.copies
    requests: list[str] = field(default_factory=list)  # that begin with it, see Step.requests

    def begin(self, now_s: float) -> None:
        """Records which sequences begin with this step."""
        for sequence in (chunk.sequence for chunk in self.chunks):
            if sequence.began_s is not None:
                continue
            sequence.began_s = now_s
            if sequence.request_id and sequence.request_id not in self.requests:
                self.requests.append(sequence.request_id)

    @property
    def n_decode(self) -> int:
        """Rows that continue answers, without those of drafts."""
        return sum(chunk.n_decode for chunk in self.chunks)

    @property
    def n_prefill(self) -> int:
        """Rows of prompts, and of tokens that are computed again."""
        return sum(chunk.n for chunk in self.chunks) - self.n_decode

    @property
    def n_drafted(self) -> int:
        """Rows of drafts."""
        return sum(len(chunk.draft) for chunk in self.chunks)

    def to_step(self) -> Step:
        """The arrays of the step; they share no memory with the sequences."""
        tokens: list[int] = []
        positions: list[int] = []
        starts = [0]
        logits_at: list[int] = []
        candidates: list[int] = []
        hidden_at: list[int] = []
        slots: list[tuple[int, int]] = []
        kept: list[tuple[int, int]] = []
        for chunk in self.chunks:
            sequence, n, draft = chunk
            begin = sequence.n_computed
            tokens += sequence.tokens[begin : begin + n]
            tokens += draft
            first = begin - sequence.n_dropped
            positions += range(first, first + n + len(draft))
            starts.append(len(tokens))
            if sequence.slot is not None:
                source = sequence.source
                slots.append((sequence.slot if source is None else source.slot, sequence.slot))
                kept += [(starts[-2] + at - begin - 1, slot) for at, slot in sequence.copies]
            if sequence.pooler is not None:
                hidden_at += range(starts[-2], starts[-1])
            elif chunk.is_last:
                logits_at += range(len(tokens) - 1 - len(draft), len(tokens))
                candidates += [sequence.n_candidates] * (1 + len(draft))
        copies, window_copies = page_copies(self.copies)
        return Step(
            tokens=np.array(tokens, np.int32),
            positions=np.array(positions, np.int32),
            starts=np.array(starts, np.int32),
            pages=page_table([chunk.sequence.pages for chunk in self.chunks]),
            window_pages=page_table([chunk.sequence.window_pages for chunk in self.chunks]),
            logits_at=np.array(logits_at, np.int32),
            candidates=np.array(candidates, np.int32),
            copies=copies,
            window_copies=window_copies,
            hidden_at=np.array(hidden_at, np.int32),
            slots=np.array(slots, np.int32).reshape(-1, 2),
            kept=np.array(kept, np.int32).reshape(-1, 2),
            requests=self.requests,
        )

    def sample(self, rows: list[LogitRow], hidden: np.ndarray, max_len: int) -> list[Result | None]:
        """Samples from the logits `rows`, or pools the states `hidden` (n, dim), of each chunk in
        order; None where a sequence has more tokens to compute first."""
        remaining, n_hidden = iter(rows), 0
        results: list[Result | None] = []
        for chunk in self.chunks:
            if chunk.sequence.pooler is not None:
                results.append(chunk.pool(hidden[n_hidden : n_hidden + chunk.n]))
                n_hidden += chunk.n
            elif chunk.is_last:
                its_rows = list(islice(remaining, 1 + len(chunk.draft)))
                results.append(chunk.sample(its_rows, max_len))
            else:
                results.append(None)
        assert next(remaining, None) is None, "the runner returned rows that were not asked for"
        return results
