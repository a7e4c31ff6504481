"""Q6_K: 256 values in 210 bytes. Nibbles, upper pairs of bits, a signed byte as the scale of each
16 values, and a float16 for all scales. Quants are 32 too large."""

from __future__ import annotations

import numpy as np

from kernels.emit.emitter import Emit
from kernels.emit.jit import jitted
from kernels.emit.vectors import I32X16, Value
from kernels.weights.format import block_format
from kernels.weights.k_blocks import sort_pairs
from kernels.weights.layout import BlockType
from kernels.weights.raw_rows import Blocks, Rows, half, high_nibbles, low_nibbles
from kernels.weights.unpack import Scales, times, words


@jitted
def _read_quants(row, at, q):
    for chunk in range(2):
        for i in range(64):
            byte = row[at + chunk * 64 + i]
            q[chunk * 128 + i], q[chunk * 128 + 64 + i] = byte & 15, byte >> 4
        for pair in range(4):
            for i in range(32):
                upper = (row[at + 128 + chunk * 32 + i] >> (2 * pair)) & 3
                q[chunk * 128 + pair * 32 + i] |= upper << 4


@jitted
def _read_scales(row, at, scale, minimum):
    d = half(row, at + 208)
    for i in range(16):
        scale[i], minimum[i] = d * np.float32(np.int8(row[at + 192 + i])), 0


def _sort_quants(rows: Rows) -> Blocks:
    """Byte i of 64 holds the nibbles of the columns i and 64 + i of 128."""
    for chunk in range(2):
        raw = rows.words(64 * chunk, 16)
        upper = sort_pairs(rows, 128 + 32 * chunk)
        for pick in (low_nibbles, high_nibbles):
            for first in (0, 8):
                low = [pick(rows.e, raw[first + i], raw[first + 4 + i]) for i in range(4)]
                yield low + next(upper)


def _unpack_scales(e: Emit, where: Value) -> list[Scales]:
    packed = words(e, where, 4)
    d = e.load_f16(e.at(where, 256))
    top = e.constant(I32X16, 24)
    values = []
    for i in range(16):
        left = e.b.shl(packed[i // 4], e.constant(I32X16, 24 - 8 * (i % 4)))
        values.append(times(e, e.b.ashr(left, top), d))
    return [Scales(values[i : i + 2], []) for i in range(0, 16, 2)]


FORMAT = block_format(
    BlockType(
        "q6_k",
        values=256,
        raw_bytes=210,
        low_bits=4,
        high_bits=2,
        offset=32,
        sub=16,
        words=((192, "u32"), (196, "u32"), (200, "u32"), (204, "u32"), (208, "f16")),
        read_quants=_read_quants,
        read_scales=_read_scales,
        sort_quants=_sort_quants,
        unpack_scales=_unpack_scales,
    )
)
