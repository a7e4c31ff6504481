"""Arrays that begin on a cache line, or on a huge page."""

from __future__ import annotations

import math
import mmap
from contextlib import suppress

import numpy as np
from numpy.typing import DTypeLike

CACHE_LINE = 64
HUGE_PAGE = 2 << 20


def aligned(shape: int | tuple[int, ...], dtype: DTypeLike) -> np.ndarray:
    """An array of zeros whose data begin at a multiple of 64 bytes."""
    kind = np.dtype(dtype)
    n_bytes = math.prod(shape if isinstance(shape, tuple) else (shape,)) * kind.itemsize
    raw = np.zeros(n_bytes + CACHE_LINE, np.uint8)
    start = -raw.ctypes.data % CACHE_LINE
    return raw[start : start + n_bytes].view(kind).reshape(shape)


def huge(shape: tuple[int, ...]) -> np.ndarray:
    """Zeroed bytes for an array that is read from end to end again and again: on huge pages, from
    the first byte on, where the system has them; what fills none of them, at the end, is on small
    ones. Rows that are never written cost no memory."""
    n_bytes = math.prod(shape)
    if n_bytes < HUGE_PAGE or not hasattr(mmap, "MADV_HUGEPAGE"):
        return aligned(shape, np.uint8)
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS  # shared memory has other rules
    memory = mmap.mmap(-1, n_bytes + HUGE_PAGE, flags=flags)
    raw = np.frombuffer(memory, np.uint8)
    start = -raw.ctypes.data % HUGE_PAGE
    with suppress(OSError):  # a kernel without them: small pages do
        memory.madvise(mmap.MADV_HUGEPAGE, start, n_bytes // HUGE_PAGE * HUGE_PAGE)
    return raw[start : start + n_bytes].reshape(shape)
