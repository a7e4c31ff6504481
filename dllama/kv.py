"""The move of keys and values when a sequence's context is full, and what is saved of a session."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated

import numpy as np

from dllama.array_limits import Int32s
from dllama.limits import Range
from dllama.step import NO_ROWS, NO_SLOT


@dataclass(frozen=True, slots=True)
class KvShift:
    """The move of a sequence's keys and values when its context is full. Of its `n_tokens` computed
    tokens the first `n_keep` stay, the next `n_drop` are dropped, and the others move to the
    positions before them; their keys are rotated back. A page of `to_pages` is either the page at
    the same place of `from_pages` or not in `from_pages`; pages that lie wholly within the kept
    tokens are the same in both."""

    n_tokens: int
    n_keep: int
    n_drop: int
    from_pages: Int32s  # (pages of n_tokens,) int32
    to_pages: Int32s  # (pages of n_tokens - n_drop,) int32
    from_window_pages: Int32s = field(default_factory=lambda: NO_ROWS)
    # the same of layers with a window: -1 for pages without tokens that are still seen. A page may
    # also be one that stands behind its place in `from_window_pages`, by whole pages of `n_drop`
    to_window_pages: Int32s = field(default_factory=lambda: NO_ROWS)


@dataclass(frozen=True, slots=True)
class KvHeld:
    """Where the keys and values of a sequence's first tokens are: pages, those of layers with a
    window without such as no later row sees, and the slot of its state."""

    pages: Int32s  # (n,) int32
    window_pages: Int32s = field(default_factory=lambda: NO_ROWS)
    slot: Annotated[int, Range(NO_SLOT, (1 << 31) - 1)] = NO_SLOT

    @classmethod
    def of(cls, *pages: Sequence[int], slot: int = NO_SLOT) -> KvHeld:
        """Returns that of the pages of each kind of layers."""
        held, in_windows = [np.array(numbers, np.int32) for numbers in (*pages, ())][:2]
        return cls(held, in_windows, slot)
