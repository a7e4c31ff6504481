"""Q5_K: 256 values in 176 bytes. Scales and minima as in Q4_K, then fifth bits and nibbles."""

from __future__ import annotations

from kernels.emit.jit import jitted
from kernels.weights.format import block_format
from kernels.weights.k_blocks import (
    read_nibbles,
    read_six_bit_scales_and_minima,
    read_upper_bits,
    sort_nibbles,
    sort_upper_bits,
    unpack_six_bit_scales_and_minima,
)
from kernels.weights.layout import BlockType
from kernels.weights.raw_rows import Blocks, Rows


@jitted
def _read_quants(row, at, q):
    read_nibbles(row, at + 48, q)
    read_upper_bits(row, at + 16, q, 4)


def _sort_quants(rows: Rows) -> Blocks:
    upper = sort_upper_bits(rows, 16)
    for i, nibbles in enumerate(sort_nibbles(rows, 48)):
        yield [*nibbles, upper[i]]


FORMAT = block_format(
    BlockType(
        "q5_k",
        values=256,
        raw_bytes=176,
        low_bits=4,
        high_bits=1,
        has_min=True,
        words=((4, "u32"), (8, "u32"), (12, "u32"), (0, "f16"), (2, "f16")),
        read_quants=_read_quants,
        read_scales=read_six_bit_scales_and_minima,
        sort_quants=_sort_quants,
        unpack_scales=unpack_six_bit_scales_and_minima,
    )
)
