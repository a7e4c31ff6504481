"""How a sequence's keys and values move when its context is full: what every rank is told."""

from __future__ import annotations

from dataclasses import dataclass

from dllama.limits import Int32s


@dataclass(frozen=True, slots=True)
class KvShift:
    """Of a sequence's `n_tokens` computed tokens the first `n_keep` stay, the next `n_drop` are
    forgotten, and the others move to the positions before them, their keys turned accordingly.

    A page of `to_pages` is the page at the same place of `from_pages` or none of them; pages
    that lie wholly within the kept tokens are the same in both.
    """

    n_tokens: int
    n_keep: int
    n_drop: int
    from_pages: Int32s  # (pages of n_tokens,) int32
    to_pages: Int32s  # (pages of n_tokens - n_drop,) int32
