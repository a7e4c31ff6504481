"""Cosine and sine in float64, the same bits on every processor: the system's own ones differ in
their last bits from one C library and processor to another."""

from __future__ import annotations

import math

import numpy as np

from kernels.emit.intrinsics import fma
from kernels.emit.jit import jitted

# The quarter turn as a sum of two float64 numbers (Cody & Waite's reduction).
QUARTER, QUARTER_REST = math.pi / 2, 6.123233995736766e-17
COSINE = tuple((-1) ** (n // 2) / math.factorial(n) for n in range(16, -1, -2))
SINE = tuple((-1) ** (n // 2) / math.factorial(n) for n in range(17, 0, -2))


@jitted
def cosine_and_sine(angle):
    """cos and sin of an angle of up to a million, to some 2e-16: Taylor's polynomials of what the
    nearest quarter turn leaves, which is at most pi / 4."""
    n = np.rint(angle * (1.0 / QUARTER))
    r = fma(-n, QUARTER_REST, fma(-n, QUARTER, angle))
    square = r * r
    c, s = COSINE[0], SINE[0]
    for i in range(1, len(COSINE)):
        c, s = fma(c, square, COSINE[i]), fma(s, square, SINE[i])
    s *= r
    quarter = int(n) & 3
    if quarter & 1:
        c, s = s, c
    if quarter == 1 or quarter == 2:
        c = -c
    if quarter >= 2:
        s = -s
    return c, s
