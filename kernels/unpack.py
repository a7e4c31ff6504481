"""From packed bits to what a dot product reads: emitted code, one table row per weight format."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from kernels.emit import Emit
from kernels.layout import GROUP, IQ4_VALUES, BlockFormat
from kernels.vectors import F32X16, I8X64, I16X16, I32X16, Value

VECTOR = 64  # bytes
HALVES = 2 * GROUP  # bytes of a float16 for each of 16 rows


class Scales(NamedTuple):
    """What 32 columns of 16 rows are multiplied by: one vector, or one for each 16 columns; and
    what minus the activations' sum is multiplied by."""

    factors: list[Value]
    minima: list[Value]


# -- quants ----------------------------------------------------------------------------------


def quants(e: Emit, fmt: BlockFormat, where: Value) -> list[tuple[Value, int]]:
    """(quants of 4 columns x 16 rows as <64 x i8>, first column), for 32 columns."""
    low = _LOW[fmt.low_bits](e, where)
    behind = e.at(where, fmt.low_bits * VECTOR)
    if fmt.high_bits == 1:
        low = _with_fifth_bit(e, low, behind, fmt.low_bits)
    elif fmt.high_bits == 2:
        low = _with_upper_pair(e, low, behind)
    shift = 0 if is_signed(e, fmt) else fmt.offset
    if fmt.name.startswith("iq4"):
        table = [(v + shift) & 0xFF for v in IQ4_VALUES]
        low = [(e.look_up(v, table), column) for v, column in low]
    elif is_signed(e, fmt):
        low = [(e.b.xor(v, e.constant(I8X64, 0x80)), column) for v, column in low]
    return low


def is_signed(e: Emit, fmt: BlockFormat) -> bool:
    """Whether `quants` are signed bytes, without the offset: where they take all 8 bits and the
    processor wants it so."""
    return fmt.offset == 128 and e.family.wants_signed


def _nibbles(e: Emit, where: Value) -> list[tuple[Value, int]]:
    """Low nibbles hold columns 0-15 of a block, high ones 16-31."""
    vectors = [e.load(I8X64, e.at(where, VECTOR * j), 64) for j in range(4)]
    low = [(e.bits(v, 0, 4), 4 * j) for j, v in enumerate(vectors)]
    return low + [(e.bits(v, 4, 4), 16 + 4 * j) for j, v in enumerate(vectors)]


def _pairs(e: Emit, where: Value) -> list[tuple[Value, int]]:
    """Two bits each; a vector holds 16 columns."""
    vectors = [e.load(I8X64, e.at(where, VECTOR * j), 64) for j in range(2)]
    return [(e.bits(v, 2 * i, 2), 16 * j + 4 * i) for j, v in enumerate(vectors) for i in range(4)]


def _bytes(e: Emit, where: Value) -> list[tuple[Value, int]]:
    return [(e.load(I8X64, e.at(where, VECTOR * j), 64), 4 * j) for j in range(8)]


_LOW: dict[int, Callable[[Emit, Value], list[tuple[Value, int]]]] = {
    2: _pairs,
    4: _nibbles,
    8: _bytes,
}


def _with_fifth_bit(
    e: Emit, low: list[tuple[Value, int]], behind: Value, low_bits: int
) -> list[tuple[Value, int]]:
    """One vector of bits: bit i of a byte belongs to column 4 i + its place."""
    bits = e.load(I8X64, behind, 64)
    return [(e.b.or_(v, e.move_bits(bits, column // 4, 1, low_bits)), column) for v, column in low]


def _with_upper_pair(
    e: Emit, low: list[tuple[Value, int]], behind: Value
) -> list[tuple[Value, int]]:
    """Two vectors of bit pairs, laid out as in _pairs."""
    vectors = [e.load(I8X64, e.at(behind, VECTOR * j), 64) for j in range(2)]
    return [
        (e.b.or_(v, e.move_bits(vectors[column // 16], column % 16 // 2, 2, 4)), column)
        for v, column in low
    ]


# -- scales ----------------------------------------------------------------------------------


def scales(e: Emit, fmt: BlockFormat, where: Value) -> list[Scales]:
    """The scales of a unit, for each 32 columns of it."""
    return _SCALES[fmt.name](e, where)


def _one(e: Emit, where: Value) -> list[Scales]:
    return [Scales([e.load_f16(where)], [])]


def _one_and_minimum(e: Emit, where: Value) -> list[Scales]:
    minimum = e.load_f16(e.at(where, HALVES))
    return [Scales([e.load_f16(where)], [e.b.fneg(minimum)])]


def _words(e: Emit, where: Value, n: int) -> list[Value]:
    return [e.load(I32X16, e.at(where, VECTOR * i), HALVES) for i in range(n)]


def _field(e: Emit, word: Value, shift: int, mask: int) -> Value:
    moved = e.b.lshr(word, e.constant(I32X16, shift)) if shift else word
    return e.b.and_(moved, e.constant(I32X16, mask))


def _join(e: Emit, low: Value, high: Value) -> Value:
    """Four low bits and two above them."""
    return e.b.or_(low, e.b.shl(high, e.constant(I32X16, 4)))


def _times(e: Emit, integer: Value, factor: Value) -> Value:
    return e.b.fmul(e.to_f32(integer), factor)


def _six_bit_scales_and_minima(e: Emit, where: Value) -> list[Scales]:
    """Q4_K and Q5_K: 12 bytes with 8 scales and 8 minima of 6 bits; the upper two bits of the
    last four are kept above the first four."""
    a, b, c = _words(e, where, 3)
    d, d_min = e.load_f16(e.at(where, 192)), e.load_f16(e.at(where, 192 + HALVES))
    found = []
    for i in range(8):
        k = 8 * (i % 4)
        if i < 4:
            scale, minimum = _field(e, a, k, 63), _field(e, b, k, 63)
        else:
            scale = _join(e, _field(e, c, k, 15), _field(e, a, k + 6, 3))
            minimum = _join(e, _field(e, c, k + 4, 15), _field(e, b, k + 6, 3))
        found.append(Scales([_times(e, scale, d)], [_times(e, minimum, d_min)]))
    return found


def _four_bit_scales_and_minima(e: Emit, where: Value) -> list[Scales]:
    """Q2_K: 16 bytes, scale in the low nibble and minimum in the high one."""
    words = _words(e, where, 4)
    d, d_min = e.load_f16(e.at(where, 256)), e.load_f16(e.at(where, 256 + HALVES))
    pairs = [
        (
            _times(e, _field(e, words[i // 4], 8 * (i % 4), 15), d),
            _times(e, _field(e, words[i // 4], 8 * (i % 4) + 4, 15), d_min),
        )
        for i in range(16)
    ]
    return [
        Scales([pairs[i][0], pairs[i + 1][0]], [pairs[i][1], pairs[i + 1][1]])
        for i in range(0, 16, 2)
    ]


def _signed_byte_scales(e: Emit, where: Value) -> list[Scales]:
    """Q6_K: 16 signed bytes."""
    words = _words(e, where, 4)
    d = e.load_f16(e.at(where, 256))
    top = e.constant(I32X16, 24)
    values = []
    for i in range(16):
        left = e.b.shl(words[i // 4], e.constant(I32X16, 24 - 8 * (i % 4)))
        values.append(_times(e, e.b.ashr(left, top), d))
    return [Scales(values[i : i + 2], []) for i in range(0, 16, 2)]


def _six_bit_scales(e: Emit, where: Value) -> list[Scales]:
    """Q3_K: 16 scales of 6 bits, 32 too large: low nibbles in 8 bytes, upper pairs in 4."""
    words = _words(e, where, 3)
    d = e.load_f16(e.at(where, 192))
    values = []
    for i in range(16):
        low = _field(e, words[i % 8 // 4], 8 * (i % 4) + 4 * (i // 8), 15)
        high = _field(e, words[2], 8 * (i % 4) + 2 * (i // 4), 3)
        values.append(_times(e, e.b.sub(_join(e, low, high), e.constant(I32X16, 32)), d))
    return [Scales(values[i : i + 2], []) for i in range(0, 16, 2)]


def _iq4_xs_scales(e: Emit, where: Value) -> list[Scales]:
    """Eight scales of 6 bits, 32 too large: low nibbles in 4 bytes, upper pairs in 2."""
    low_bits = _words(e, where, 1)[0]
    d = e.load_f16(e.at(where, VECTOR))
    high_bits = e.b.zext(e.load(I16X16, e.at(where, VECTOR + HALVES), 32), I32X16)
    found = []
    for i in range(8):
        scale = _join(e, _field(e, low_bits, 4 * i, 15), _field(e, high_bits, 2 * i, 3))
        found.append(Scales([_times(e, e.b.sub(scale, e.constant(I32X16, 32)), d)], []))
    return found


_SCALES: dict[str, Callable[[Emit, Value], list[Scales]]] = {
    "q4_0": _one,
    "q4_1": _one_and_minimum,
    "q5_0": _one,
    "q5_1": _one_and_minimum,
    "q8_0": _one,
    "q2_k": _four_bit_scales_and_minima,
    "q3_k": _six_bit_scales,
    "q4_k": _six_bit_scales_and_minima,
    "q5_k": _six_bit_scales_and_minima,
    "q6_k": _signed_byte_scales,
    "iq4_nl": _one,
    "iq4_xs": _iq4_xs_scales,
}

assert F32X16.count == GROUP
