"""Q4_K: 256 values in 144 bytes. A float16 for all scales and one for all minima, a scale and a
minimum of 6 bits for each 32 values, and nibbles."""

from __future__ import annotations

from kernels.emit.jit import jitted
from kernels.weights.format import block_format
from kernels.weights.k_blocks import (
    read_nibbles,
    read_six_bit_scales_and_minima,
    sort_nibbles,
    unpack_six_bit_scales_and_minima,
)
from kernels.weights.layout import BlockType
from kernels.weights.raw_rows import Blocks, Rows


@jitted
def _read_quants(row, at, q):
    read_nibbles(row, at + 16, q)


def _sort_quants(rows: Rows) -> Blocks:
    yield from sort_nibbles(rows, 16)


FORMAT = block_format(
    BlockType(
        "q4_k",
        values=256,
        raw_bytes=144,
        low_bits=4,
        has_min=True,
        words=((4, "u32"), (8, "u32"), (12, "u32"), (0, "f16"), (2, "f16")),
        read_quants=_read_quants,
        read_scales=read_six_bit_scales_and_minima,
        sort_quants=_sort_quants,
        unpack_scales=unpack_six_bit_scales_and_minima,
    )
)
