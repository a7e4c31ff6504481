"""The number types weights are stored in: one table row each. Numbering and block layouts are
ggml's (https://github.com/ggml-org/ggml, ggml-common.h), which GGUF files refer to."""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple

from kernels.formats import ALL_TYPES


class QType(IntEnum):
    """Storage types, numbered as in GGUF."""

    F32 = 0
    F16 = 1
    Q4_0 = 2
    Q4_1 = 3
    Q5_0 = 6
    Q5_1 = 7
    Q8_0 = 8
    Q8_1 = 9
    Q2_K = 10
    Q3_K = 11
    Q4_K = 12
    Q5_K = 13
    Q6_K = 14
    Q8_K = 15
    IQ2_XXS = 16
    IQ2_XS = 17
    IQ3_XXS = 18
    IQ1_S = 19
    IQ4_NL = 20
    IQ3_S = 21
    IQ2_S = 22
    IQ4_XS = 23
    I8 = 24
    I16 = 25
    I32 = 26
    I64 = 27
    F64 = 28
    IQ1_M = 29
    BF16 = 30
    TQ1_0 = 34
    TQ2_0 = 35
    MXFP4 = 39
    NVFP4 = 40
    Q1_0 = 41
    Q2_0 = 42


class Block(NamedTuple):
    """The values and the bytes of one block of a type."""

    values: int
    bytes: int


BLOCK: dict[QType, Block] = {
    QType.F32: Block(1, 4),
    QType.F16: Block(1, 2),
    QType.BF16: Block(1, 2),
    QType.Q4_0: Block(32, 18),
    QType.Q4_1: Block(32, 20),
    QType.Q5_0: Block(32, 22),
    QType.Q5_1: Block(32, 24),
    QType.Q8_0: Block(32, 34),
    QType.Q8_1: Block(32, 36),
    QType.Q2_K: Block(256, 84),
    QType.Q3_K: Block(256, 110),
    QType.Q4_K: Block(256, 144),
    QType.Q5_K: Block(256, 176),
    QType.Q6_K: Block(256, 210),
    QType.Q8_K: Block(256, 292),
    QType.IQ2_XXS: Block(256, 66),
    QType.IQ2_XS: Block(256, 74),
    QType.IQ3_XXS: Block(256, 98),
    QType.IQ1_S: Block(256, 50),
    QType.IQ4_NL: Block(32, 18),
    QType.IQ3_S: Block(256, 110),
    QType.IQ2_S: Block(256, 82),
    QType.IQ4_XS: Block(256, 136),
    QType.I8: Block(1, 1),
    QType.I16: Block(1, 2),
    QType.I32: Block(1, 4),
    QType.I64: Block(1, 8),
    QType.F64: Block(1, 8),
    QType.IQ1_M: Block(256, 56),
    QType.TQ1_0: Block(256, 54),
    QType.TQ2_0: Block(256, 66),
    QType.MXFP4: Block(32, 17),
    QType.NVFP4: Block(64, 36),
    QType.Q1_0: Block(128, 18),
    QType.Q2_0: Block(64, 18),
}

PACKED_BYTES: dict[QType, int] = {
    QType.IQ1_S: 54,
    QType.IQ2_XXS: 70,
    QType.IQ3_XXS: 102,
    QType.TQ1_0: 58,
}
"""Bytes of a block in memory, where they are more than in a file."""

SCALE_BYTES: dict[QType, int] = {
    QType.Q2_K: 20,
    QType.Q3_K: 14,
    QType.Q4_K: 16,
    QType.Q5_K: 16,
    QType.Q6_K: 18,
    QType.IQ2_XXS: 6,
    QType.IQ2_XS: 10,
    QType.IQ3_XXS: 6,
    QType.IQ1_S: 6,
    QType.IQ3_S: 6,
    QType.IQ2_S: 10,
    QType.IQ4_XS: 8,
    QType.IQ1_M: 8,
    QType.TQ1_0: 2,
    QType.TQ2_0: 2,
    QType.NVFP4: 4,
    QType.Q1_0: 2,
    QType.Q2_0: 2,
}
"""Bytes of the scales in a block of several runs of 32 values. Of a block that is cut a rank keeps
the quants of its own columns, and these."""

RUN = 32
"""Values of a run: a block in memory is cut between two of them."""

COMPUTABLE: frozenset[QType] = frozenset(QType[name.upper()] for name in ALL_TYPES)
"""The types there are kernels for; a tensor of any other type is refused by name."""


def row_bytes(qtype: QType, cols: int) -> int:
    """Returns the bytes of one row of `cols` values. Raises ValueError where a row would end inside
    a block."""
    block = BLOCK[qtype]
    if cols % block.values:
        raise ValueError(
            f"a row of {cols} values does not end at a block of {qtype.name}, "
            f"which holds {block.values} values"
        )
    return cols // block.values * block.bytes


def packed_row_bytes(qtype: QType, cols: range) -> int:
    """Returns the bytes in memory of some columns of a row: of quants that lie in runs of 32 whole
    runs, of scales those of whole blocks."""
    values, file_bytes = BLOCK[qtype]
    n_blocks = -(-cols.stop // values) - cols.start // values
    block_bytes, scales = PACKED_BYTES.get(qtype, file_bytes), SCALE_BYTES.get(qtype)
    if scales is None:
        return n_blocks * block_bytes
    n_runs = -(-cols.stop // RUN) - cols.start // RUN
    return n_runs * (block_bytes - scales) * RUN // values + n_blocks * scales
