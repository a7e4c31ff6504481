"""e to the x in float32, in operations that vectorise: the same bits wherever it is used.

To be called from functions made by jit.jitted or jit.kernel: where sums may be reordered
(jit.reordered), the compiler would cancel the very rounding this relies on.
"""

from __future__ import annotations

import numpy as np

from kernels.intrinsics import f32_bits, f32_from_bits
from kernels.jit import inlined

LOG2_E = np.float32(1.4426950408889634)
LN2_HIGH, LN2_LOW = np.float32(0.693145751953125), np.float32(1.42860677e-06)
ROUND = np.float32(12582912.0)  # 1.5 * 2^23: adding it leaves the nearest integer in the low bits
LOWEST, HIGHEST = np.float32(-87.3), np.float32(88.3)  # beyond: subnormal, infinite


@inlined
def exp_f32(x):
    """e**x to about 2 units in the last place: x = n ln2 + r with |r| <= ln2 / 2, Taylor's
    polynomial of degree 6 in r, times 2**n by its exponent bits (Cody & Waite's reduction)."""
    x = min(max(x, LOWEST), HIGHEST)
    shifted = x * LOG2_E + ROUND
    n = shifted - ROUND
    r = x - n * LN2_HIGH - n * LN2_LOW
    p = np.float32(1 / 720)
    p = p * r + np.float32(1 / 120)
    p = p * r + np.float32(1 / 24)
    p = p * r + np.float32(1 / 6)
    p = p * r + np.float32(0.5)
    p = p * r + np.float32(1)
    p = p * r + np.float32(1)
    scale = f32_from_bits(
        np.int32((f32_bits(shifted) - np.int32(0x4B400000) + np.int32(127)) << 23)
    )
    return p * scale
