"""The integer sums of a block: 32 columns of 16 rows times the int8 activations of a tile's tokens.

A token at a time, with a dot product for each 4 columns, or where the processor has products of two
rows with two (i8mm), two tokens at a time with one for each 8 columns. Sums of integers are exact:
both give the same.
"""

from __future__ import annotations

from typing import Any, cast

from llvmlite import ir

from kernels.emit.emitter import Emit
from kernels.emit.families import join, parts
from kernels.emit.vectors import I8X16, I32, I32X16, I64, Value
from kernels.weights.layout import BLOCK, GROUP, BlockType
from kernels.weights.unpack import is_signed, largest_quant

I64X2 = ir.VectorType(I64, 2)
PAIRS = GROUP // 2  # of rows
MOST_SHORT, MOST_ACTIVATION = 32767, 127

Weights = list[tuple[Value, int]]
"""What `quants` returns: 4 columns of 16 rows, and the first column."""


def block_dots(
    e: Emit, fmt: BlockType, weights: Weights, a_quants: Value, starts: list[list[Value]]
) -> list[list[Value]]:
    """For each token its sums (<16 x i32>): one, or one for each 16 columns.

    `a_quants` is the address of the first token's activations, `starts` are the values at which
    each token's sums begin.
    """
    if e.family.multiply_pairs is None:
        return _one_by_one(e, fmt, weights, a_quants, starts)
    even = len(starts) // 2 * 2
    dots = _two_by_two(e, fmt, weights, a_quants, starts[:even])
    last = e.at(a_quants, BLOCK * even)
    return dots + _one_by_one(e, fmt, weights, last, starts[even:])


def _one_by_one(
    e: Emit, fmt: BlockType, weights: Weights, a_quants: Value, starts: list[list[Value]]
) -> list[list[Value]]:
    dots, signed = [list(of_token) for of_token in starts], is_signed(e, fmt)
    at_once = MOST_SHORT // (2 * MOST_ACTIVATION * largest_quant(e, fmt))
    if e.family.multiply_short is not None and at_once > 1:
        _add_short(e, fmt, weights, a_quants, dots, at_once)
        return dots
    for of_columns, column in weights:
        part = column // fmt.sub
        for t, sums in enumerate(dots):
            four = e.load_splat_4x8(e.at(a_quants, BLOCK * t + column))
            sums[part] = e.dot(sums[part], of_columns, four, is_signed=signed)
    return dots


def _add_short(
    e: Emit, fmt: BlockType, weights: Weights, a_quants: Value, dots: list[list[Value]],
    at_once: int,
) -> None:  # fmt: skip
    """Adds to all tokens' sums, with at most `at_once` products of small weights in 16 bits before
    they are widened."""
    multiply, widen = cast(Any, e.family.multiply_short), cast(Any, e.family.widen)
    for part in range(BLOCK // fmt.sub):
        here = [(v, column) for v, column in weights if column // fmt.sub == part]
        for first in range(0, len(here), at_once):
            short: list[Any] = [None] * len(dots)
            for of_columns, column in here[first : first + at_once]:
                for t, so_far in enumerate(short):
                    four = e.load_splat_4x8(e.at(a_quants, BLOCK * t + column))
                    product = multiply(e, of_columns, four, False)
                    short[t] = product if so_far is None else e.b.add(so_far, product)
            for sums, total in zip(dots, short, strict=True):
                sums[part] = widen(e, sums[part], total)


def _two_by_two(
    e: Emit, fmt: BlockType, weights: Weights, a_quants: Value, starts: list[list[Value]]
) -> list[list[Value]]:
    """The sums of an even number of tokens. Until all columns are added, they are <4 x i32> for
    each pair of tokens and each pair of rows: the first row with both tokens, then the second."""
    multiply: Any = e.family.multiply_pairs
    begin = ir.Constant(ir.VectorType(I32, 4), [0, GROUP, 0, GROUP])
    sums = [
        [
            [e.b.shuffle_vector(*both, begin)] * PAIRS
            for both in zip(*starts[t : t + 2], strict=True)
        ]
        for t in range(0, len(starts), 2)
    ]
    for (left, column), (right, _) in zip(weights[::2], weights[1::2], strict=True):
        rows, part = _by_pairs_of_rows(e, left, right), column // fmt.sub
        for pair, of_pair in enumerate(sums):
            tokens = _two_tokens(e, e.at(a_quants, 2 * BLOCK * pair + column))
            so_far = zip(of_pair[part], rows, strict=True)
            of_pair[part] = [multiply(e, total, two, tokens) for total, two in so_far]
    return [_of_token(e, of_pair, t) for of_pair in sums for t in range(2)]


def _by_pairs_of_rows(e: Emit, left: Value, right: Value) -> list[Value]:
    """4 columns of 16 rows and the next 4 (<64 x i8> each) as 8 columns of two rows (<16 x i8>), of
    each pair of rows."""
    lanes = [lane for row in range(GROUP) for lane in (row, GROUP + row)]
    sides = [e.b.bitcast(side, I32X16) for side in (left, right)]
    by_rows = e.b.shuffle_vector(*sides, ir.Constant(ir.VectorType(I32, 2 * GROUP), lanes))
    return [e.b.bitcast(pair, I8X16) for pair in parts(e, by_rows, PAIRS)]


def _two_tokens(e: Emit, where: Value) -> Value:
    """8 activations of a token, at `where`, and of the next one, <16 x i8>."""
    both = ir.Constant(I64X2, ir.Undefined)
    for t in range(2):
        eight = e.load(I64, e.at(where, BLOCK * t), 8)
        both = e.b.insert_element(both, eight, ir.Constant(I32, t))
    return e.b.bitcast(both, I8X16)


def _of_token(e: Emit, sums: list[list[Value]], t: int) -> list[Value]:
    """The sums of token t of a pair, of all 16 rows."""
    pick = ir.Constant(I32X16, list(range(t, 2 * GROUP, 2)))
    whole = [join(e, of_part) for of_part in sums]
    return [e.b.shuffle_vector(v, v, pick) for v in whole]
