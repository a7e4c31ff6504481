"""Pages of layers with a window: which of them a row sees, and how many there are in all.

Such layers have pages of their own beside those of all other layers. A sequence gives back the
pages that no later row of it sees.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from dllama.config import ModelConfig
from dllama.step import PAGE_TOKENS

SEQUENCES_PER_CONTEXT = 4  # whose windows have room, for each full context in the other pages

LEAST_SEQUENCES = 2  # a sequence that rolls may need two windows at once


class Windows(NamedTuple):
    """The tokens that layers with a window see at most, and the pages that these have."""

    n_tokens: int
    n_pages: int


NO_WINDOWS = Windows(0, 0)


def first_seen(position: int, window: int) -> int:
    """Returns the page of the first token that a row at a position sees; a window of 0 is none."""
    return max(0, position - window + 1) // PAGE_TOKENS if window else 0


def window_span(window: int) -> int:
    """Returns the most pages that a row sees with a window, and one more to go on in."""
    return -(-(window - 1) // PAGE_TOKENS) + 2


def ring_of_pages(n: int, n_ring: int, first: int = 0) -> np.ndarray:
    """Returns the pages, (n,) int32, of a sequence that goes round `n_ring` of them, from a first
    one on: for steps without an engine that gives pages back."""
    return np.arange(n, dtype=np.int32) % n_ring + np.int32(first)


def window_pages(config: ModelConfig, n_pages: int, max_step_tokens: int) -> int:
    """Returns the pages for layers with a window that come with `n_pages` for all others: windows
    of some sequences for each full context, and the rows of a step; no more than the others."""
    if not config.window:
        return 0
    n_sequences = -(-SEQUENCES_PER_CONTEXT * n_pages * PAGE_TOKENS // config.max_seq_len)
    n_sequences = max(n_sequences, LEAST_SEQUENCES)
    n_rows = -(-max_step_tokens // PAGE_TOKENS)
    return min(n_pages, n_sequences * window_span(config.window) + n_rows)
