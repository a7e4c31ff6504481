"""Rows of float32 to the blocks of a type."""

from __future__ import annotations

import numpy as np

from kernels.arrays import aligned
from kernels.encoding import encoding_of
from kernels.encoding.lanes import N_LANES
from kernels.encoding.search import N_ROWS

MOST_VALUES = 256  # of a unit
MOST_IN_BLOCK = 32


def encode_rows(fmt: str, values: np.ndarray, out: np.ndarray) -> None:
    """Writes the blocks of values (n,) float32, whole units of the type, to out, flat uint8. Does
    not hold the GIL, and calls in several threads are independent."""
    rest = np.zeros(MOST_IN_BLOCK * N_LANES, np.float32)
    tile = aligned((MOST_IN_BLOCK, N_LANES), np.float32)
    found = aligned((N_ROWS, N_LANES), np.float32)
    q = aligned(MOST_VALUES, np.uint8)
    encoding_of(fmt)(values, (out, rest, tile, found, q))
