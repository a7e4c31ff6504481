"""TQ2_0: 256 values of -1, 0 and 1 in 66 bytes. Quants of two bits, and a float16 scale of all."""

from __future__ import annotations

from kernels.emit.jit import jitted
from kernels.weights.format import block_format
from kernels.weights.k_blocks import read_pairs, sort_pairs
from kernels.weights.layout import BlockType
from kernels.weights.raw_rows import Blocks, Rows
from kernels.weights.simple_blocks import one_scale, read_scale


@jitted
def _read_quants(row, at, q):
    read_pairs(row, at, q)


@jitted
def _read_scales(row, at, scale, minimum):
    read_scale(row, at + 64, scale, minimum)


def _sort_quants(rows: Rows) -> Blocks:
    for chunk in range(2):
        yield from sort_pairs(rows, 32 * chunk)


FORMAT = block_format(
    BlockType(
        "tq2_0",
        values=256,
        raw_bytes=66,
        low_bits=2,
        offset=1,
        words=((64, "f16"),),
        read_quants=_read_quants,
        read_scales=_read_scales,
        sort_quants=_sort_quants,
        unpack_scales=one_scale(8),
    )
)
