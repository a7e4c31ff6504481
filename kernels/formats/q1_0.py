"""Q1_0: 128 values in 18 bytes, a float16 scale and a bit each: minus the scale, or the scale."""

from __future__ import annotations

from kernels.emit.jit import jitted
from kernels.weights.format import block_format
from kernels.weights.layout import BlockType
from kernels.weights.raw_rows import Blocks, Rows, bits_of_columns
from kernels.weights.simple_blocks import one_scale, read_scale

VALUES = (-1, 1) + (0,) * 14


@jitted
def _read_quants(row, at, q):
    for i in range(128):
        q[i] = (row[at + 2 + i // 8] >> (i % 8)) & 1


def _sort_quants(rows: Rows) -> Blocks:
    for word in rows.words(2, 4):
        yield [bits_of_columns(rows.e, word)]


FORMAT = block_format(
    BlockType(
        "q1_0",
        values=128,
        raw_bytes=18,
        low_bits=1,
        offset=1,
        table=VALUES,
        words=((0, "f16"),),
        read_quants=_read_quants,
        read_scales=read_scale,
        sort_quants=_sort_quants,
        unpack_scales=one_scale(4),
    )
)
