"""Q8_0: 32 values in 34 bytes, a float16 scale and signed bytes."""

from __future__ import annotations

from kernels.emit.jit import jitted
from kernels.weights.format import block_format
from kernels.weights.layout import BlockType
from kernels.weights.raw_rows import Blocks, Rows, flipped
from kernels.weights.simple_blocks import read_scale, unpack_scale


@jitted
def _read_quants(row, at, q):
    for i in range(32):
        q[i] = row[at + 2 + i] ^ 0x80  # signed to unsigned: the dot product takes 0..255


def _sort_quants(rows: Rows) -> Blocks:
    yield [flipped(rows.e, word) for word in rows.words(2, 8)]


FORMAT = block_format(
    BlockType(
        "q8_0",
        values=32,
        raw_bytes=34,
        low_bits=8,
        offset=128,
        words=((0, "f16"),),
        read_quants=_read_quants,
        read_scales=read_scale,
        sort_quants=_sort_quants,
        unpack_scales=unpack_scale,
    )
)
