"""What is done to the numbers of checkpoints (Family.hf_changes) of more than one family."""

from __future__ import annotations

import numpy as np


def plus_one(values: np.ndarray) -> np.ndarray:
    """The weights of a norm whose checkpoints have what they are above one."""
    weights: np.ndarray = 1 + values
    return weights
