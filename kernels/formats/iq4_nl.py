"""IQ4_NL: 32 values in 18 bytes, a float16 scale and nibbles that number the entries of a table."""

from __future__ import annotations

from kernels.emit.jit import jitted
from kernels.weights.format import block_format
from kernels.weights.layout import BlockType
from kernels.weights.simple_blocks import read_nibbles, read_scale, sort_nibbles, unpack_scale

VALUES = (-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113)
"""ggml's kvalues_iq4nl."""


@jitted
def _read_quants(row, at, q):
    read_nibbles(row, at + 2, q)


FORMAT = block_format(
    BlockType(
        "iq4_nl",
        values=32,
        raw_bytes=18,
        low_bits=4,
        offset=128,
        table=VALUES,
        words=((0, "f16"),),
        read_quants=_read_quants,
        read_scales=read_scale,
        sort_quants=sort_nibbles(2),
        unpack_scales=unpack_scale,
    )
)
