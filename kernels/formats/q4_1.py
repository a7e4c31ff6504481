"""Q4_1: 32 values in 20 bytes, a float16 scale, a float16 minimum and nibbles."""

from __future__ import annotations

from kernels.emit.jit import jitted
from kernels.weights.format import block_format
from kernels.weights.layout import BlockType
from kernels.weights.simple_blocks import (
    read_nibbles,
    read_scale_and_minimum,
    sort_nibbles,
    unpack_scale_and_minimum,
)


@jitted
def _read_quants(row, at, q):
    read_nibbles(row, at + 4, q)


FORMAT = block_format(
    BlockType(
        "q4_1",
        values=32,
        raw_bytes=20,
        low_bits=4,
        has_min=True,
        words=((0, "f16"), (2, "f16")),
        read_quants=_read_quants,
        read_scales=read_scale_and_minimum,
        sort_quants=sort_nibbles(4),
        unpack_scales=unpack_scale_and_minimum,
    )
)
