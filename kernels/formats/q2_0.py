"""Q2_0: 64 values in 18 bytes, a float16 scale and quants of two bits that are 1 too large."""

from __future__ import annotations

from kernels.emit.jit import jitted
from kernels.weights.format import block_format
from kernels.weights.layout import BlockType
from kernels.weights.raw_rows import Blocks, Rows, pairs_of_columns
from kernels.weights.simple_blocks import one_scale, read_scale


@jitted
def _read_quants(row, at, q):
    for i in range(64):
        q[i] = (row[at + 2 + i // 4] >> (2 * (i % 4))) & 3


def _sort_quants(rows: Rows) -> Blocks:
    words = [pairs_of_columns(rows.e, word) for word in rows.words(2, 4)]
    yield words[:2]
    yield words[2:]


FORMAT = block_format(
    BlockType(
        "q2_0",
        values=64,
        raw_bytes=18,
        low_bits=2,
        offset=1,
        words=((0, "f16"),),
        read_quants=_read_quants,
        read_scales=read_scale,
        sort_quants=_sort_quants,
        unpack_scales=one_scale(2),
    )
)
