"""Q5_0: 32 values in 22 bytes, a float16 scale, fifth bits and nibbles that are 16 too large."""

from __future__ import annotations

from kernels.emit.jit import jitted
from kernels.weights.format import block_format
from kernels.weights.layout import BlockType
from kernels.weights.simple_blocks import (
    read_fifth_bits,
    read_nibbles,
    read_scale,
    sort_five_bits,
    unpack_scale,
)


@jitted
def _read_quants(row, at, q):
    read_nibbles(row, at + 6, q)
    read_fifth_bits(row, at + 2, q)


FORMAT = block_format(
    BlockType(
        "q5_0",
        values=32,
        raw_bytes=22,
        low_bits=4,
        high_bits=1,
        offset=16,
        words=((0, "f16"),),
        read_quants=_read_quants,
        read_scales=read_scale,
        sort_quants=sort_five_bits(2, 6),
        unpack_scales=unpack_scale,
    )
)
