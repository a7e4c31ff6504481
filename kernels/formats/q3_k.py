"""Q3_K: 256 values in 110 bytes. Third bits, pairs of lower bits, 16 scales of 6 bits that are 32
too large (low nibbles in 8 bytes, upper pairs in 4), and a float16 for all scales."""

from __future__ import annotations

import numpy as np

from kernels.emit.emitter import Emit
from kernels.emit.jit import jitted
from kernels.emit.vectors import Value
from kernels.weights.format import block_format
from kernels.weights.k_blocks import read_pairs, read_upper_bits, sort_pairs, sort_upper_bits
from kernels.weights.layout import BlockType
from kernels.weights.raw_rows import Blocks, Rows, half
from kernels.weights.unpack import Scales, field, joined, less_32, times, words


@jitted
def _read_quants(row, at, q):
    read_pairs(row, at + 32, q)
    read_upper_bits(row, at, q, 2)


@jitted
def _read_scales(row, at, scale, minimum):
    d = half(row, at + 108)
    for i in range(16):
        low = (row[at + 96 + i % 8] >> (4 * (i // 8))) & 15
        high = (row[at + 104 + i % 4] >> (2 * (i // 4))) & 3
        scale[i], minimum[i] = d * np.float32(np.int32(low | (high << 4)) - 32), 0


def _sort_quants(rows: Rows) -> Blocks:
    upper = sort_upper_bits(rows, 0)
    for chunk in range(2):
        for i, pairs in enumerate(sort_pairs(rows, 32 + 32 * chunk)):
            yield [*pairs, upper[4 * chunk + i]]


def _unpack_scales(e: Emit, where: Value) -> list[Scales]:
    bits = words(e, where, 3)
    d = e.load_f16(e.at(where, 192))
    values = []
    for i in range(16):
        low = field(e, bits[i % 8 // 4], 8 * (i % 4) + 4 * (i // 8), 15)
        high = field(e, bits[2], 8 * (i % 4) + 2 * (i // 4), 3)
        values.append(times(e, less_32(e, joined(e, low, high)), d))
    return [Scales(values[i : i + 2], []) for i in range(0, 16, 2)]


FORMAT = block_format(
    BlockType(
        "q3_k",
        values=256,
        raw_bytes=110,
        low_bits=2,
        high_bits=1,
        offset=4,
        sub=16,
        words=((96, "u32"), (100, "u32"), (104, "u32"), (108, "f16")),
        read_quants=_read_quants,
        read_scales=_read_scales,
        sort_quants=_sort_quants,
        unpack_scales=_unpack_scales,
    )
)
