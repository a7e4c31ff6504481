"""The factors of queries that grow with their position (Scalable-Softmax, arXiv 2501.19399)."""

from __future__ import annotations

from decimal import Decimal, localcontext

import numpy as np

from dllama.config import ModelConfig

_DIGITS = 30  # float32 holds 8


def growth_factors(config: ModelConfig) -> np.ndarray:
    """Returns what the queries at position p are multiplied with, at the place
    (p + first) // length: float32 (n,), empty where queries do not grow.

    By decimals: logarithms of float64 differ in their last bits from processor to processor, and
    ranks have to agree.
    """
    growth = config.query_growth
    if growth is None:
        return np.zeros(0, np.float32)
    n, scale = (config.max_seq_len - 1 + growth.first) // growth.length + 1, Decimal(growth.scale)
    with localcontext(prec=_DIGITS):
        return np.array([1 + scale * Decimal(1 + i).ln() for i in range(n)], np.float32)
