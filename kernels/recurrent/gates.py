"""The two numbers that a head of a gated delta net is told with each row: how much of its state is
kept, and how much of what is new is written."""

from __future__ import annotations

import numpy as np

from kernels.emit.exponential import exp_f32
from kernels.emit.intrinsics import fma
from kernels.emit.jit import jitted

ATANH = tuple(np.float32(2 / n) for n in (17, 15, 13, 11, 9, 7, 5, 3, 1))


@jitted
def softplus(x):
    """ln(1 + e**x) in float32, with the same bits on every processor: what is above zero, and
    ln(1 + u) of u = e**-|x| as 2 atanh(u / (2 + u)), by its series."""
    u = exp_f32(-abs(x))
    s = u / (np.float32(2) + u)
    square = s * s
    p = fma(ATANH[0], square, ATANH[1])
    p = fma(p, square, ATANH[2])
    p = fma(p, square, ATANH[3])
    p = fma(p, square, ATANH[4])
    p = fma(p, square, ATANH[5])
    p = fma(p, square, ATANH[6])
    p = fma(p, square, ATANH[7])
    p = fma(p, square, ATANH[8])
    return fma(p, s, max(x, np.float32(0)))


@jitted
def sigmoid(x):
    """1 / (1 + e**-x) in float32."""
    return np.float32(1) / (np.float32(1) + exp_f32(-x))
