"""The norm of one row: of the residual stream, or of a query or key head."""

from __future__ import annotations

import numpy as np

from kernels.emit.jit import jitted
from kernels.squares import sum_of, sum_of_squares


@jitted
def norm_row(x, weight, epsilon, is_centered, out):
    """out = weight * x / sqrt(mean(x^2) + epsilon) (Zhang & Sennrich, arXiv:1910.07467); where it
    is centered, of x - mean(x) in place of x (Ba et al., arXiv:1607.06450). Weights may be followed
    by as many biases, which are added. `out` may be x."""
    mean = sum_of(x) / np.float32(x.size) if is_centered else np.float32(0)
    for i in range(x.size):
        out[i] = x[i] - mean
    mean_square = sum_of_squares(out) / np.float32(x.size)
    factor = np.float32(1) / np.sqrt(mean_square + epsilon)
    for i in range(x.size):
        out[i] = out[i] * factor * weight[i]
    if weight.size > x.size:
        for i in range(x.size):
            out[i] += weight[x.size + i]
