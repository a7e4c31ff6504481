"""One row's block as a file holds it, taken apart: unsigned quants in the order of the columns,
and the scale and minimum of each 16 columns. A weight is scale * (quant - offset) + minimum.

Layouts are ggml's (https://github.com/ggml-org/ggml, ggml-common.h and ggml-quants.c). `row` is the
row's bytes and `at` where the block begins.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from kernels.intrinsics import f16_to_f32
from kernels.jit import jitted
from kernels.layout import IQ4_VALUES

_IQ4 = np.array(IQ4_VALUES, np.float32)


@jitted
def half(row, at):
    """The float16 at a byte offset, as float32."""
    return f16_to_f32(np.uint16(row[at] | (np.uint16(row[at + 1]) << 8)))


# -- quants: fill q (values,) uint8 ------------------------------------------------------------


@jitted
def _nibbles_32(row, at, q):
    for i in range(16):
        q[i], q[16 + i] = row[at + i] & 15, row[at + i] >> 4


@jitted
def _q4_0_quants(row, at, q):
    _nibbles_32(row, at + 2, q)


@jitted
def _q4_1_quants(row, at, q):
    _nibbles_32(row, at + 4, q)


@jitted
def _fifth_bits_32(row, at, q):
    for i in range(32):
        q[i] |= ((row[at + i // 8] >> (i % 8)) & 1) << 4


@jitted
def _q5_0_quants(row, at, q):
    _nibbles_32(row, at + 6, q)
    _fifth_bits_32(row, at + 2, q)


@jitted
def _q5_1_quants(row, at, q):
    _nibbles_32(row, at + 8, q)
    _fifth_bits_32(row, at + 4, q)


@jitted
def _q8_0_quants(row, at, q):
    for i in range(32):
        q[i] = row[at + 2 + i] ^ 0x80  # signed to unsigned: the dot product wants 0..255


@jitted
def _pairs_256(row, at, q):
    for chunk in range(2):
        for field in range(4):
            for i in range(32):
                q[chunk * 128 + field * 32 + i] = (row[at + chunk * 32 + i] >> (2 * field)) & 3


@jitted
def _q2_k_quants(row, at, q):
    _pairs_256(row, at + 16, q)


@jitted
def _q3_k_quants(row, at, q):
    _pairs_256(row, at + 32, q)
    for i in range(256):
        q[i] |= ((row[at + i % 32] >> (i // 32)) & 1) << 2


@jitted
def _nibbles_256(row, at, q):
    for chunk in range(4):
        for i in range(32):
            byte = row[at + chunk * 32 + i]
            q[chunk * 64 + i], q[chunk * 64 + 32 + i] = byte & 15, byte >> 4


@jitted
def _q4_k_quants(row, at, q):
    _nibbles_256(row, at + 16, q)


@jitted
def _q5_k_quants(row, at, q):
    _nibbles_256(row, at + 48, q)
    for i in range(256):
        q[i] |= ((row[at + 16 + i % 32] >> (i // 32)) & 1) << 4


@jitted
def _q6_k_quants(row, at, q):
    for chunk in range(2):
        for i in range(64):
            byte = row[at + chunk * 64 + i]
            q[chunk * 128 + i], q[chunk * 128 + 64 + i] = byte & 15, byte >> 4
        for field in range(4):
            for i in range(32):
                upper = (row[at + 128 + chunk * 32 + i] >> (2 * field)) & 3
                q[chunk * 128 + field * 32 + i] |= upper << 4


@jitted
def _iq4_xs_quants(row, at, q):
    for block in range(8):
        _nibbles_32(row, at + 8 + 16 * block, q[32 * block : 32 * block + 32])


# -- scales: fill scale and minimum (values / 16,) float32 -------------------------------------


@jitted
def _one_scale(row, at, scale, minimum):
    scale[:] = half(row, at)
    minimum[:] = 0


@jitted
def _scale_and_minimum(row, at, scale, minimum):
    scale[:], minimum[:] = half(row, at), half(row, at + 2)


@jitted
def _q2_k_scales(row, at, scale, minimum):
    d, d_min = half(row, at + 80), half(row, at + 82)
    for i in range(16):
        scale[i] = d * np.float32(row[at + i] & 15)
        minimum[i] = -d_min * np.float32(row[at + i] >> 4)


@jitted
def _q3_k_scales(row, at, scale, minimum):
    d = half(row, at + 108)
    for i in range(16):
        low = (row[at + 96 + i % 8] >> (4 * (i // 8))) & 15
        high = (row[at + 104 + i % 4] >> (2 * (i // 4))) & 3
        scale[i], minimum[i] = d * np.float32(np.int32(low | (high << 4)) - 32), 0


@jitted
def _q45_k_scales(row, at, scale, minimum):
    d, d_min, s = half(row, at), half(row, at + 2), at + 4
    for i in range(8):
        if i < 4:
            a, b = row[s + i] & 63, row[s + 4 + i] & 63
        else:
            a = (row[s + 4 + i] & 15) | ((row[s + i - 4] >> 6) << 4)
            b = (row[s + 4 + i] >> 4) | ((row[s + i] >> 6) << 4)
        scale[2 * i : 2 * i + 2] = d * np.float32(a)
        minimum[2 * i : 2 * i + 2] = -d_min * np.float32(b)


@jitted
def _q6_k_scales(row, at, scale, minimum):
    d = half(row, at + 208)
    for i in range(16):
        scale[i], minimum[i] = d * np.float32(np.int8(row[at + 192 + i])), 0


@jitted
def _iq4_xs_scales(row, at, scale, minimum):
    d, high_bits = half(row, at), np.uint16(row[at + 2] | (np.uint16(row[at + 3]) << 8))
    for i in range(8):
        low = (row[at + 4 + i // 2] >> (4 * (i % 2))) & 15
        high = (high_bits >> (2 * i)) & 3
        scale[2 * i : 2 * i + 2] = d * np.float32(np.int32(low | (high << 4)) - 32)
        minimum[2 * i : 2 * i + 2] = 0


# -- values ------------------------------------------------------------------------------------


@jitted
def _plain(q, offset):
    return np.float32(np.int32(q) - offset)


@jitted
def _from_table(q, offset):
    return _IQ4[q]


class Reader(NamedTuple):
    """How a format's block is taken apart: quants(row, at, q), scales(row, at, scale, minimum) and
    value(q, offset), the number a quant stands for."""

    quants: Any
    scales: Any
    value: Any


READERS = {
    "q4_0": Reader(_q4_0_quants, _one_scale, _plain),
    "q4_1": Reader(_q4_1_quants, _scale_and_minimum, _plain),
    "q5_0": Reader(_q5_0_quants, _one_scale, _plain),
    "q5_1": Reader(_q5_1_quants, _scale_and_minimum, _plain),
    "q8_0": Reader(_q8_0_quants, _one_scale, _plain),
    "q2_k": Reader(_q2_k_quants, _q2_k_scales, _plain),
    "q3_k": Reader(_q3_k_quants, _q3_k_scales, _plain),
    "q4_k": Reader(_q4_k_quants, _q45_k_scales, _plain),
    "q5_k": Reader(_q5_k_quants, _q45_k_scales, _plain),
    "q6_k": Reader(_q6_k_quants, _q6_k_scales, _plain),
    "iq4_nl": Reader(_q4_0_quants, _one_scale, _from_table),
    "iq4_xs": Reader(_iq4_xs_quants, _iq4_xs_scales, _from_table),
}
