"""One ragged batch: everything that a rank learns about requests."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

import numpy as np

from dllama.array_limits import Array, Int32s
from dllama.limits import Id, MaxLength

NO_ROWS = np.zeros(0, np.int32)
NO_PAIRS = np.zeros((0, 2), np.int32)
NO_TABLES = np.zeros((0, 0), np.int32)

NO_SLOT = -1  # of a sequence whose model keeps no states
PAGE_TOKENS = 32  # tokens of KV in a page: two 16-lane vectors of keys; small enough to share
MAX_LOGIT_ROWS = 64  # rows of logits that a step may ask for
MAX_REQUESTS = 1024  # that begin with one step
MAX_CANDIDATES = 256  # the most logits a rank sends for a row that does not need all of them


@dataclass(frozen=True, slots=True)
class Step:
    """T tokens of S sequences, in order: sequence s owns the rows starts[s]:starts[s+1].

    A decoding sequence is a chunk of one row; there is no other difference between decode and
    prefill. Keys and values of the token at position p of sequence s live in page pages[s, p //
    PAGE_TOKENS].
    """

    tokens: Int32s  # (T,) int32
    positions: Int32s  # (T,) int32
    starts: Int32s  # (S + 1,) int32
    pages: Annotated[np.ndarray, Array(np.int32, ndim=2)]
    # (S, max_pages) int32; entries beyond a sequence's length are -1
    logits_at: Int32s  # (R,) int32: the rows whose logits are wanted
    candidates: Int32s  # (R,) int32: how many of the largest logits; 0 for the whole row
    copies: Annotated[np.ndarray, Array(np.int32, ndim=2)] = field(default_factory=lambda: NO_PAIRS)
    # (C, 2) int32: pages whose contents are copied, from and to, one after the other, before
    # anything is computed: sequences that begin alike and differ within a page
    hidden_at: Int32s = field(default_factory=lambda: NO_ROWS)
    # (H,) int32: the rows whose last states rank 0 keeps
    slots: Annotated[np.ndarray, Array(np.int32, ndim=2)] = field(default_factory=lambda: NO_PAIRS)
    # (S, 2) int32: where layers keep states, the slot that each sequence's state is read from, and
    # the one it is left in. None at all: sequence s of the step has slot s
    kept: Annotated[np.ndarray, Array(np.int32, ndim=2)] = field(default_factory=lambda: NO_PAIRS)
    # (K, 2) int32: rows, and the slot that the state after each is copied to
    window_pages: Annotated[np.ndarray, Array(np.int32, ndim=2)] = field(
        default_factory=lambda: NO_TABLES
    )
    # (S, max_pages) int32: the pages of layers with a window, where there are some; entries that no
    # row sees are -1. None at all: the same numbers as in `pages`
    window_copies: Annotated[np.ndarray, Array(np.int32, ndim=2)] = field(
        default_factory=lambda: NO_PAIRS
    )
    # (C, 2) int32: copies of these pages
    requests: Annotated[list[Id], MaxLength(MAX_REQUESTS)] = field(default_factory=list)
    # the ids of HTTP requests of which sequences begin with this step, for the logs of ranks

    @property
    def n_tokens(self) -> int:
        return len(self.tokens)

    @property
    def is_decode(self) -> bool:
        """Returns whether every row continues an answer: steps that read prompts have rows without
        logits."""
        return len(self.logits_at) == len(self.tokens)


@dataclass(frozen=True, slots=True)
class LogitRow:
    """One row of logits for the sampler: the whole row, or its largest entries.

    `ids` is None for a whole row (then `logits` is (n_tokens,)); otherwise ids (k,) int32 and
    logits (k,) float32 are sorted by falling logit, ties by rising id. `log_sum_exp` is over
    all tokens either way. Rows of a padded vocabulary that stand for no token are in none of
    them.
    """

    ids: np.ndarray | None
    logits: np.ndarray
    log_sum_exp: float
