"""The storage type of keys and values, and their move when a sequence's context is full."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from dllama.limits import Int32s


class KvType(StrEnum):
    """Storage types of keys and values, named as in file formats; see
    kernels.attention.kv_pages."""

    F16 = "f16"
    Q8_0 = "q8_0"  # blocks of 32 with one scale: 0.53 of the memory
    F32 = "f32"  # as they are computed: twice the memory


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
