"""Q4_0: 32 values in 18 bytes, a float16 scale and nibbles that are 8 too large."""

from __future__ import annotations

from kernels.emit.jit import jitted
from kernels.weights.format import block_format
from kernels.weights.layout import BlockType
from kernels.weights.simple_blocks import read_nibbles, read_scale, sort_nibbles, unpack_scale


@jitted
def _read_quants(row, at, q):
    read_nibbles(row, at + 2, q)


FORMAT = block_format(
    BlockType(
        "q4_0",
        values=32,
        raw_bytes=18,
        low_bits=4,
        offset=8,
        words=((0, "f16"),),
        read_quants=_read_quants,
        read_scales=read_scale,
        sort_quants=sort_nibbles(2),
        unpack_scales=unpack_scale,
    )
)
