"""The layout of packed weights and activations in memory, and the description of a weight type.

Weights: groups of 16 output rows. For the float types a group is (cols, 16) values, for bfloat16
(cols / 2, 16, 2): processors add two of its products at once. The quant types have a plane of
quants and a plane of scales. A group's quants lie in runs of 32 columns: one 64-byte vector holds 4
consecutive columns of all 16 rows, so that one integer dot product with a broadcast of 4
activations feeds 16 rows, and no sums across lanes are needed. Types of more than 4 bits keep the
upper bits in vectors of their own, after the lower ones. Scales lie unit after unit (a unit is a
block of the file: 32 or 256 columns) as the file has them, word by word of all 16 rows: nothing is
widened, so a packed matrix is as large as the file's. Types of fewer bits name runs of quants by
their numbers (grids.py); where bits of those have to be completed, or lie across 32 columns in the
file, a matrix is up to 8 % larger. Of units that are cut the quants of the matrix's own columns are
kept, and the scales of the whole unit.

Activations: tiles of a few tokens (see tiles.py), block after block, token after token: nothing is
padded and every tile is read front to back.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from kernels.emit.emitter import Emit
    from kernels.emit.vectors import Value
    from kernels.weights.raw_rows import Blocks, Rows
    from kernels.weights.unpack import Scales

GROUP = 16  # output rows of a group: the lanes of a 512-bit vector of float32
BLOCK = 32  # columns that share an activation scale

WORD_BYTES = {"u32": 4, "u16": 2, "u8": 1, "f16": 2, "e8m0": 1}
"""The kinds of words in a scale plane: packed bits, a float16, and OCP's power of two as a byte."""


class RunLayout(NamedTuple):
    """Quants packed as numbers of runs (grids.py): the bytes of a row's 32 columns, and
    unpack(e, where), which emits their way to quants of 4 columns x 16 rows (<64 x i8>), each with
    its first column."""

    row_bytes: int
    unpack: Callable[[Emit, Value], list[tuple[Value, int]]]


class BlockType(NamedTuple):
    """A type of small integers with scales, as ggml defines it (ggml-common.h).

    A weight is scale * (quant - offset) + minimum, or scale * table[quant]; quants are unsigned, a
    table entry plus the offset is at least 0, and `sub` columns share a scale. `words` lists the
    scale plane's words of a unit, (offset in the file's block, kind), the wide ones first so that
    they stay aligned.

    read_quants(row, at, q) and read_scales(row, at, scale, minimum) are jitted. They take one row's
    block apart, which begins at row[at]: q (values,) uint8 in the order of the columns, scale and
    minimum (values / 16,) float32. sort_quants and unpack_scales emit vector code: the first makes
    of 16 raw rows the packed vectors of each 32 columns, low bits first, the second reads the
    scales of each 32 columns from a packed unit. Where the packed scales are not the file's words,
    sort_scales makes those that `words` names.
    """

    name: str
    values: int  # columns of a unit
    raw_bytes: int  # of one row's unit in a file
    words: tuple[tuple[int, str], ...]
    read_quants: Any
    read_scales: Any
    sort_quants: Callable[[Rows], Blocks]
    unpack_scales: Callable[[Emit, Value], list[Scales]]
    low_bits: int = 0  # of a quant in the low vectors
    high_bits: int = 0  # of a quant in the vectors after the low ones
    runs: RunLayout | None = None  # where quants are packed as such
    offset: int = 0  # a power of two, or zero
    sub: int = 32  # columns that share a scale: 32 or 16
    has_min: bool = False
    table: tuple[int, ...] | None = None  # the value of each of 16 quants
    sort_scales: Callable[[Rows], list[Value]] | None = None

    @property
    def quant_bytes(self) -> int:
        """Bytes of a group's quants of 32 columns."""
        if self.runs:
            return self.runs.row_bytes * GROUP
        return (self.low_bits + self.high_bits) * BLOCK * GROUP // 8

    @property
    def step_columns(self) -> int:
        """Columns of a step of a matmul."""
        return BLOCK

    @property
    def unit_blocks(self) -> int:
        """Runs of 32 columns in a unit."""
        return self.values // BLOCK

    @property
    def scale_bytes(self) -> int:
        """Bytes of a group's scales of a unit."""
        return GROUP * sum(WORD_BYTES[kind] for _, kind in self.words)

    def n_steps(self, cols: int) -> int:
        """Units of a row."""
        return cols // self.values

    def row_bytes(self, cols: int) -> int:
        """Bytes of a raw row."""
        return cols // self.values * self.raw_bytes

    def group_bytes(self, cols: int, first_block: int = 0) -> tuple[int, int]:
        """Bytes of a packed group's quants and of its scales, where the columns begin at a run of
        32 of their first unit."""
        n_blocks = cols // BLOCK
        n_units = -(-(first_block + n_blocks) // self.unit_blocks)
        return n_blocks * self.quant_bytes, n_units * self.scale_bytes


class FloatType(NamedTuple):
    """A type of plain numbers. A vector holds `columns` neighbouring columns of 16 rows.

    read(row, at) is jitted: the number at row[at] as float32. load(e, where) emits the reading of
    a vector: the numbers of 16 rows as <16 x float> of each column, in the order in which their
    products are added and activations are laid out. Where a type `is_dotted`, it is one word of all
    columns instead, which is multiplied with words of as many activations.
    """

    name: str
    item_bytes: int
    read: Any
    load: Callable[[Emit, Value], list[Value]]
    columns: int = 1
    is_dotted: bool = False

    @property
    def values(self) -> int:
        """Columns of a unit: a row may end anywhere."""
        return 1

    @property
    def step_columns(self) -> int:
        """Columns of a step of a matmul."""
        return self.columns

    @property
    def is_expanded(self) -> bool:
        """True if weights are made float32 before many tokens are multiplied with them."""
        return self.item_bytes < 4 and not self.is_dotted

    @property
    def input_words(self) -> int:
        """Words of 4 bytes that a token's activations take for a vector."""
        return 1 if self.is_dotted else self.columns

    @property
    def vector_bytes(self) -> int:
        return GROUP * self.columns * self.item_bytes

    def n_steps(self, cols: int) -> int:
        """Columns of a row."""
        return cols

    def row_bytes(self, cols: int) -> int:
        """Bytes of a raw row."""
        return cols * self.item_bytes

    def group_bytes(self, cols: int, first_block: int = 0) -> tuple[int, int]:
        """Bytes of a packed group, columns beyond the last being zeros, and none of scales."""
        return -(-cols // self.columns) * self.vector_bytes, 0


def n_groups(rows: int) -> int:
    """Groups of 16 that hold `rows` rows."""
    return -(-rows // GROUP)


class Packed(NamedTuple):
    """A weight matrix as the kernels read it: `rows` x `cols` values of a type. `quants` is the
    plane of quants (or of plain numbers), `scales` the plane of scales, empty for float types.

    It may be several matrices of one shape: they lie in one plane, at equal distances. The columns
    may begin and end inside of a unit: they begin at run `first_block` of 32 of their first unit.
    """

    format: str
    rows: int
    cols: int
    quants: np.ndarray  # (n_groups, bytes of a group) uint8
    scales: np.ndarray  # (n_groups, bytes of a group) uint8
    n_matrices: int = 1
    first_block: int = 0

    @property
    def n_bytes(self) -> int:
        return int(self.quants.nbytes + self.scales.nbytes)


class Activations(NamedTuple):
    """A matmul's input: `rows` (T, cols) float32, and the same as the kernels read it.

    `tiles` (tile, cols, tokens of the tile) float32 feeds float weights. `bf16` feeds bfloat16
    weights: the same rounded to bfloat16, as the bits of float32, with the second column of each
    pair first; or where the processor is quick with pairs, (tile, cols / 2, tokens) int32 with two
    numbers each. Quantized weights read `quants`
    (tile, block, token, 32) int8 (of many tokens plus 128, see expanded.py), with `scales` (tile,
    block, token) float32; `sums` (tile, block, token, 3) int32 are minus the sums of a block's
    first 16 quants, of its last 16, and of all; `weighted` float32 is the same times the scale.
    """

    rows: np.ndarray
    tiles: np.ndarray
    quants: np.ndarray
    scales: np.ndarray
    sums: np.ndarray
    weighted: np.ndarray
    bf16: np.ndarray

    def part(self, first: int) -> Activations:
        """Returns the buffers from a row on, in the same memory, for as many rows as there are."""
        n_rows = len(self.rows)
        flat = (plane[first * (len(plane) // n_rows) :] for plane in self[1:])
        return Activations(self.rows[first:], *flat)


class Needs(NamedTuple):
    """The forms of its activations that the next matmul reads."""

    quants: bool = False
    tiles: bool = False
    bf16: bool = False
