"""IQ4_NL, IQ4_XS and MXFP4: levels are the entries of a table."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from kernels.emit.emitter import Emit
from kernels.emit.intrinsics import f32_bits
from kernels.emit.jit import jitted
from kernels.emit.vectors import F32X16, I32X16, Value
from kernels.encoding.bits import Block, put_half, write_nibbles
from kernels.encoding.lanes import Found, Lanes, Sum, Tile, where
from kernels.encoding.search import LEAST, SCALE, best_scale, furthest
from kernels.encoding.signed import put_signed_factor
from kernels.encoding.tiles import Encoding, OfBlock, encoding_kernel
from kernels.formats.iq4_nl import VALUES
from kernels.formats.mxfp4 import VALUES as FP4


def _level(table: tuple[int, ...]) -> Callable[[Lanes], Lanes]:
    """A function of values that gives the nearest entries of an ascending table."""

    def level(x: Lanes) -> Lanes:
        return _risen(x, table, [float(value) for value in table])

    return level


def _risen(x: Lanes, table: tuple[int, ...], results: list[float]) -> Lanes:
    """The result that belongs to the entry nearest to each value."""
    found = x * 0.0 + results[0]
    for low, high, result in zip(table[:-1], table[1:], results[1:], strict=True):
        found = where(x > (low + high) / 2, _constant(x, result), found)
    return found


def _constant(like: Lanes, value: float) -> Lanes:
    return Lanes(like.e, like.e.constant(like.value.type, value))


def _search(tile: Tile, found: Found) -> None:
    """The value furthest from 0 is near one of the table's ends."""
    ends = [*range(VALUES[0] - 7, VALUES[0] + 8), VALUES[-1], 120, 127]
    best_scale(tile, found, ends=ends, level_of=_level(VALUES))


def _place(x: Lanes, of_block: OfBlock) -> Lanes:
    return _risen(x * of_block(SCALE).inverse(), VALUES, [float(i) for i in range(16)])


@jitted
def _write_scale(out, at, found, lane):
    found[SCALE, lane] = put_half(out, at, found[SCALE, lane])


def _write_iq4_nl(block: Block) -> None:
    write_nibbles(block, 2)


@jitted
def _write_six_bits(out, at, found, lane):
    d = put_signed_factor(out, at, found, lane, 8, 32)
    for i in range(6):
        out[at + 2 + i] = 0
    for i in range(8):
        number = np.uint8(np.int32(found[SCALE, lane + i]) + 32)
        out[at + 2 + i // 4] |= (number >> 4) << (2 * (i % 4))
        out[at + 4 + i // 2] |= (number & 15) << (4 * (i % 2))
        found[SCALE, lane + i] *= d


def _write_iq4_xs(block: Block) -> None:
    for i in range(8):
        write_nibbles(block, 8 + 16 * i, 32 * i)


# -- MXFP4 -----------------------------------------------------------------------------------

_ORDER = [*sorted(range(9, 16), key=lambda i: FP4[i]), *range(8)]  # without minus zero
_ASCENDING = tuple(FP4[i] for i in _ORDER)
_LEAST_FIELD, _LARGEST_FIELD = 4, 253  # of float32's exponents, so that scales are normal numbers


def _search_power(tile: Tile, found: Found) -> None:
    """Of the two powers of two with which the value furthest from 0 is within or just beyond the
    table's end, the one that leaves the smaller squares."""
    e = tile.e
    top = abs(furthest(tile))
    field = e.b.lshr(e.b.bitcast(top.value, I32X16), e.constant(I32X16, 23))
    field = _bounded(e, field, _LEAST_FIELD, _LARGEST_FIELD)
    best, least = Sum(e), Sum(e, -LEAST)
    for less in (3, 2):
        bits = e.b.shl(e.b.sub(field, e.constant(I32X16, less)), e.constant(I32X16, 23))
        scale, squares = Lanes(e, e.b.bitcast(bits, F32X16)), Sum(e)
        by, level_of = scale.inverse(), _level(_ASCENDING)
        with tile.each() as x:
            error = x - level_of(x * by) * scale
            squares.add(error * error)
        is_better = squares.get() < least.get()
        least.set(where(is_better, squares.get(), least.get()))
        best.set(where(is_better, scale, best.get()))
    found.set(SCALE, where(top.is_zero(), top, best.get()))


def _bounded(e: Emit, v: Value, low: int, high: int) -> Value:
    for sign, bound in (("<", e.constant(I32X16, low)), (">", e.constant(I32X16, high))):
        v = e.b.select(e.b.icmp_signed(sign, v, bound), bound, v)
    return v


def _place_of_fp4(x: Lanes, of_block: OfBlock) -> Lanes:
    return _risen(x * of_block(SCALE).inverse(), _ASCENDING, [float(i) for i in _ORDER])


@jitted
def _write_power(out, at, found, lane):
    """The table holds doubled values, so the stored power is that of twice the scale."""
    bits = f32_bits(found[SCALE, lane])
    out[at] = 0 if bits == 0 else (bits >> 23) + 1


def _write_mxfp4(block: Block) -> None:
    write_nibbles(block, 1)


IQ4_NL = Encoding("iq4_nl", 32, 18, 32, _search, _write_scale, _place, _write_iq4_nl)
IQ4_XS = Encoding("iq4_xs", 256, 136, 32, _search, _write_six_bits, _place, _write_iq4_xs)
MXFP4 = Encoding("mxfp4", 32, 17, 32, _search_power, _write_power, _place_of_fp4, _write_mxfp4)

ENCODE = {f.name: encoding_kernel(f) for f in (IQ4_NL, IQ4_XS, MXFP4)}
"""By the type: the kernel that encodes it."""
