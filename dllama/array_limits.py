"""Limits of the arrays of messages, as dllama/limits.py has those of other fields:
`Annotated[np.ndarray, Array(np.int32)]`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import numpy as np


@dataclass(frozen=True, slots=True)
class Array:
    """A NumPy array of this type and number of dimensions, with at most `max_len` rows."""

    dtype: type[np.generic]
    ndim: int = 1
    max_len: int = 1 << 30


Int32s = Annotated[np.ndarray, Array(np.int32)]
