"""Arrays that begin on a cache line."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import DTypeLike

CACHE_LINE = 64


def aligned(shape: int | tuple[int, ...], dtype: DTypeLike) -> np.ndarray:
    """An array of zeros whose data begin at a multiple of 64 bytes."""
    kind = np.dtype(dtype)
    n_bytes = math.prod(shape if isinstance(shape, tuple) else (shape,)) * kind.itemsize
    raw = np.zeros(n_bytes + CACHE_LINE, np.uint8)
    start = -raw.ctypes.data % CACHE_LINE
    return raw[start : start + n_bytes].view(kind).reshape(shape)
