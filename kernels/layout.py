"""How packed weights and activations lie in memory. One table row per weight format.

Weights: groups of 16 output rows. For the float formats a group is (cols, 16) values. For the
block formats the group has a plane of quants and a plane of scales, block after block; inside a
block of quants one 64-byte vector holds 4 consecutive columns of all 16 rows, so that one integer
dot product with a broadcast of 4 activations feeds 16 rows and no sums across lanes are needed.

Activations: tiles of up to 8 tokens, block after block, token after token: the last tile is as
narrow as the tokens left, so that nothing is padded and every tile is read front to back.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

GROUP = 16  # output rows of a group: the lanes of a 512-bit vector of float32
BLOCK = 32  # columns that share an activation scale
TILE = 8  # tokens of an activation tile: what the registers hold beside the weights


class BlockFormat(NamedTuple):
    """A format of integer quants with a scale per block of 32 columns."""

    name: str
    raw_bytes: int  # of one row's block in a file
    quant_bytes: int  # of a group's packed block
    offset: int  # what to subtract from the unsigned quant; a power of two


class FloatFormat(NamedTuple):
    """A format of plain numbers."""

    name: str
    item_bytes: int


Q4_0 = BlockFormat("q4_0", 18, 256, 8)
Q8_0 = BlockFormat("q8_0", 34, 512, 128)
F32 = FloatFormat("f32", 4)
F16 = FloatFormat("f16", 2)
BF16 = FloatFormat("bf16", 2)

BLOCK_FORMATS = {f.name: f for f in (Q4_0, Q8_0)}
FLOAT_FORMATS = {f.name: f for f in (F32, F16, BF16)}


def n_groups(rows: int) -> int:
    return -(-rows // GROUP)


class Packed(NamedTuple):
    """A weight matrix as the kernels want it. `rows` x `cols` values; `quants` is the plane of
    quants (or of plain numbers) as bytes, `scales` the plane of float16 scales as uint16, empty
    for the float formats."""

    format: str
    rows: int
    cols: int
    quants: np.ndarray  # (n_groups, bytes of a group) uint8
    scales: np.ndarray  # (n_groups, cols / 32 * 16) uint16

    @property
    def n_bytes(self) -> int:
        return self.quants.nbytes + self.scales.nbytes


class Activations(NamedTuple):
    """A matmul's input: `rows` (T, cols) float32, and the same as the kernels read it.

    `tiles` (tile, cols, tokens of the tile) float32 feeds float weights; `quants` (tile, block,
    token, 32) int8 with `scales` (tile, block, token) float32 and `sums` (the same shape, int32:
    minus the sum of a block's quants) feeds block weights.
    """

    rows: np.ndarray
    tiles: np.ndarray
    quants: np.ndarray
    scales: np.ndarray
    sums: np.ndarray
