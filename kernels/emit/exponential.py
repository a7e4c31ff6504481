"""e to the x in float32, in operations that vectorise: the same bits wherever it is called, and on
every processor.

exp_f32 is to be called from functions made by jit.jitted or jit.kernel: where sums may be reordered
(jit.reordered), the compiler would cancel the very rounding this relies on.
"""

from __future__ import annotations

import numpy as np

from kernels.emit.emitter import Emit
from kernels.emit.intrinsics import f32_bits, f32_from_bits, fma
from kernels.emit.jit import inlined
from kernels.emit.vectors import F32X16, I32X16, Value

LOG2_E = np.float32(1.4426950408889634)
LN2_HIGH, LN2_LOW = np.float32(0.693145751953125), np.float32(1.42860677e-06)
ROUND = np.float32(12582912.0)  # 1.5 * 2^23: adding it leaves the nearest integer in the low bits
TAYLOR = tuple(np.float32(1 / n) for n in (720, 120, 24, 6, 2, 1, 1))
LOWEST, HIGHEST = np.float32(-87.3), np.float32(88.3)  # beyond: subnormal, infinite


@inlined
def exp_f32(x):
    """e**x to about 2 units in the last place: x = n ln2 + r with |r| <= ln2 / 2, Taylor's
    polynomial of degree 6 in r, times 2**n by its exponent bits (Cody & Waite's reduction)."""
    x = min(max(x, LOWEST), HIGHEST)
    shifted = fma(x, LOG2_E, ROUND)
    n = shifted - ROUND
    r = fma(n, -LN2_LOW, fma(n, -LN2_HIGH, x))
    p = fma(TAYLOR[0], r, TAYLOR[1])
    p = fma(p, r, TAYLOR[2])
    p = fma(p, r, TAYLOR[3])
    p = fma(p, r, TAYLOR[4])
    p = fma(p, r, TAYLOR[5])
    p = fma(p, r, TAYLOR[6])
    scale = f32_from_bits(
        np.int32((f32_bits(shifted) - np.int32(0x4B400000) + np.int32(127)) << 23)
    )
    return p * scale


def emit_exp(e: Emit, x: Value) -> Value:
    """Emits the same for <16 x float> that are not above zero."""

    def c(value: np.float32) -> Value:
        return e.constant(F32X16, float(value))

    x = e.larger(x, c(LOWEST))
    shifted = e.fma(x, c(LOG2_E), c(ROUND))
    n = e.b.fsub(shifted, c(ROUND))
    r = e.fma(n, c(-LN2_LOW), e.fma(n, c(-LN2_HIGH), x))
    p = c(TAYLOR[0])
    for term in TAYLOR[1:]:
        p = e.fma(p, r, c(term))
    exponent = e.b.sub(e.b.bitcast(shifted, I32X16), e.constant(I32X16, 0x4B400000 - 127))
    scale = e.b.bitcast(e.b.shl(exponent, e.constant(I32X16, 23)), F32X16)
    return e.b.fmul(p, scale)


def emit_tanh(e: Emit, x: Value) -> Value:
    """Emits the hyperbolic tangent of <16 x float>, to some 1e-7 of one: (1 - t) / (1 + t) for t =
    e**(-2 |x|), with the sign of x."""
    zero, one = e.constant(F32X16, 0.0), e.constant(F32X16, 1.0)
    is_negative = e.b.fcmp_ordered("<", x, zero)
    size = e.b.select(is_negative, e.b.fneg(x), x)
    t = emit_exp(e, e.b.fmul(size, e.constant(F32X16, -2.0)))
    found = e.b.fdiv(e.b.fsub(one, t), e.b.fadd(one, t))
    return e.b.select(is_negative, e.b.fneg(found), found)
