"""Q2_K: 256 values in 84 bytes. 16 bytes with a scale (low nibble) and a minimum (high nibble) of
each 16 values, quants of two bits, and a float16 for all scales and one for all minima."""

from __future__ import annotations

import numpy as np

from kernels.emit.emitter import Emit
from kernels.emit.jit import jitted
from kernels.emit.vectors import Value
from kernels.weights.format import block_format
from kernels.weights.k_blocks import read_pairs, sort_pairs
from kernels.weights.layout import BlockType
from kernels.weights.raw_rows import Blocks, Rows, half
from kernels.weights.unpack import HALVES, Scales, field, times, words


@jitted
def _read_quants(row, at, q):
    read_pairs(row, at + 16, q)


@jitted
def _read_scales(row, at, scale, minimum):
    d, d_min = half(row, at + 80), half(row, at + 82)
    for i in range(16):
        scale[i] = d * np.float32(row[at + i] & 15)
        minimum[i] = -d_min * np.float32(row[at + i] >> 4)


def _sort_quants(rows: Rows) -> Blocks:
    for chunk in range(2):
        yield from sort_pairs(rows, 16 + 32 * chunk)


def _unpack_scales(e: Emit, where: Value) -> list[Scales]:
    nibbles = words(e, where, 4)
    d, d_min = e.load_f16(e.at(where, 256)), e.load_f16(e.at(where, 256 + HALVES))
    pairs = [
        (
            times(e, field(e, nibbles[i // 4], 8 * (i % 4), 15), d),
            times(e, field(e, nibbles[i // 4], 8 * (i % 4) + 4, 15), d_min),
        )
        for i in range(16)
    ]
    return [
        Scales([pairs[i][0], pairs[i + 1][0]], [pairs[i][1], pairs[i + 1][1]])
        for i in range(0, 16, 2)
    ]


FORMAT = block_format(
    BlockType(
        "q2_k",
        values=256,
        raw_bytes=84,
        low_bits=2,
        sub=16,
        has_min=True,
        words=((0, "u32"), (4, "u32"), (8, "u32"), (12, "u32"), (80, "f16"), (82, "f16")),
        read_quants=_read_quants,
        read_scales=_read_scales,
        sort_quants=_sort_quants,
        unpack_scales=_unpack_scales,
    )
)
