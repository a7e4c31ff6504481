"""How packed weights and activations lie in memory. One table row per weight format.

Weights: groups of 16 output rows. For the float formats a group is (cols, 16) values, for bfloat16
(cols / 2, 16, 2): processors add two of its products at once. The block
formats have a plane of quants and a plane of scales. A group's quants lie 32 columns after 32: one
64-byte vector holds 4 consecutive columns of all 16 rows, so that one integer dot product with a
broadcast of 4 activations feeds 16 rows, and no sums across lanes are needed. Formats of more than
4 bits keep the upper bits in vectors of their own, behind the lower ones. Scales lie unit after
unit (a unit is a block of the file: 32 or 256 columns) as the file has them, word by word of all 16
rows: nothing is widened, so a packed matrix is as large as the file's.

Activations: tiles of a few tokens (see tiles.py), block after block, token after token: nothing is
padded and every tile is read front to back.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

GROUP = 16  # output rows of a group: the lanes of a 512-bit vector of float32
BLOCK = 32  # columns that share an activation scale


class BlockFormat(NamedTuple):
    """A format of small integers with scales, as ggml defines it (ggml-common.h).

    A weight is scale * (quant - offset) + minimum, where quants are unsigned (or looked up in a
    table) and `sub` columns share a scale. `words` lists the scale plane's words of a unit:
    (offset in the file's block, bytes), the wide ones first so that they stay aligned.
    """

    name: str
    values: int  # columns of a unit
    raw_bytes: int  # of one row's unit in a file
    low_bits: int  # of a quant in the low vectors
    high_bits: int  # of a quant in the vectors behind
    offset: int  # a power of two, or zero
    sub: int  # columns that share a scale: 32 or 16
    has_min: bool
    words: tuple[tuple[int, int], ...]

    @property
    def quant_bytes(self) -> int:
        """Bytes of a group's quants of 32 columns."""
        return (self.low_bits + self.high_bits) * BLOCK * GROUP // 8

    @property
    def unit_blocks(self) -> int:
        return self.values // BLOCK

    @property
    def scale_bytes(self) -> int:
        """Bytes of a group's scales of a unit."""
        return GROUP * sum(size for _, size in self.words)


class FloatFormat(NamedTuple):
    """A format of plain numbers. A vector holds `columns` neighbouring columns of 16 rows."""

    name: str
    item_bytes: int
    columns: int = 1

    def n_vectors(self, cols: int) -> int:
        """Vectors of a group; columns beyond the last are zeros."""
        return -(-cols // self.columns)


def _row(at: int, n: int) -> tuple[tuple[int, int], ...]:
    """n words of 4 bytes from `at` on."""
    return tuple((at + 4 * i, 4) for i in range(n))


BLOCK_FORMATS = {
    f.name: f
    for f in (
        #           name      unit raw  lo hi off  sub min    words
        BlockFormat("q4_0", 32, 18, 4, 0, 8, 32, False, ((0, 2),)),
        BlockFormat("q4_1", 32, 20, 4, 0, 0, 32, True, ((0, 2), (2, 2))),
        BlockFormat("q5_0", 32, 22, 4, 1, 16, 32, False, ((0, 2),)),
        BlockFormat("q5_1", 32, 24, 4, 1, 0, 32, True, ((0, 2), (2, 2))),
        BlockFormat("q8_0", 32, 34, 8, 0, 128, 32, False, ((0, 2),)),
        BlockFormat("q2_k", 256, 84, 2, 0, 0, 16, True, (*_row(0, 4), (80, 2), (82, 2))),
        BlockFormat("q3_k", 256, 110, 2, 1, 4, 16, False, (*_row(96, 3), (108, 2))),
        BlockFormat("q4_k", 256, 144, 4, 0, 0, 32, True, (*_row(4, 3), (0, 2), (2, 2))),
        BlockFormat("q5_k", 256, 176, 4, 1, 0, 32, True, (*_row(4, 3), (0, 2), (2, 2))),
        BlockFormat("q6_k", 256, 210, 4, 2, 32, 16, False, (*_row(192, 4), (208, 2))),
        BlockFormat("iq4_nl", 32, 18, 4, 0, 128, 32, False, ((0, 2),)),
        BlockFormat("iq4_xs", 256, 136, 4, 0, 128, 32, False, ((4, 4), (0, 2), (2, 2))),
    )
}
F32 = FloatFormat("f32", 4)
F16 = FloatFormat("f16", 2)
BF16 = FloatFormat("bf16", 2, columns=2)
FLOAT_FORMATS = {f.name: f for f in (F32, F16, BF16)}

IQ4_VALUES = (-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113)
"""What the 4 bits of the iq4 formats stand for (ggml's kvalues_iq4nl)."""


def n_groups(rows: int) -> int:
    return -(-rows // GROUP)


class Packed(NamedTuple):
    """A weight matrix as the kernels want it. `rows` x `cols` values; `quants` is the plane of
    quants (or of plain numbers), `scales` the plane of scales, empty for the float formats."""

    format: str
    rows: int
    cols: int
    quants: np.ndarray  # (n_groups, bytes of a group) uint8
    scales: np.ndarray  # (n_groups, bytes of a group) uint8

    @property
    def n_bytes(self) -> int:
        return int(self.quants.nbytes + self.scales.nbytes)


class Activations(NamedTuple):
    """A matmul's input: `rows` (T, cols) float32, and the same as the kernels read it.

    `tiles` (tile, cols, tokens of the tile) float32 feeds float weights, `pairs` (tile, cols / 2,
    tokens) int32 with two bfloat16 each feeds bfloat16 weights. Block weights read `quants` (tile,
    block, token, 32) int8 (of many tokens plus 128, see expanded.py), with `scales` (tile, block,
    token) float32; `sums` (tile, block, token, 3) int32 are minus the sums of a block's first 16
    quants, of its last 16, and of all; `weighted` float32 is the same times the scale.
    """

    rows: np.ndarray
    tiles: np.ndarray
    quants: np.ndarray
    scales: np.ndarray
    sums: np.ndarray
    weighted: np.ndarray
    pairs: np.ndarray


class Needs(NamedTuple):
    """Which of the ways to hold activations the next matmul reads."""

    quants: bool = False
    tiles: bool = False
    pairs: bool = False
