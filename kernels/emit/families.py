"""The operations that differ by processor family: integer dot product, table look-up, gather.

Vectors are <64 x i8> and <16 x i32>, whatever the width of the registers; Emit says what they
return.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

from llvmlite import ir

from kernels.emit.vectors import I8, I8X16, I8X64, I16, I16X16, I32, I32X16, I64, Value


class Emitter(Protocol):
    """The part of Emit that families use."""

    b: Any

    def declare(self, name: str, result: Any, args: list[Any]) -> Any: ...

    def constant(self, vector: Any, value: float) -> Value: ...


class Family(NamedTuple):
    """A processor family's dot(e, acc, weights, signed, is_signed), look_up(e, v, table) and
    gather(e, table, index), and whether its dot product takes weights beyond 127 as signed bytes.

    multiply_short(e, weights, signed, is_signed), where the family has it, is the sums of two
    products each (<32 x i16>), of which several may be added up before widen(e, acc, short) adds
    pairs of lanes to acc (<16 x i32>).

    multiply_pairs(e, acc, rows, tokens), where the family has it, is acc (<4 x i32>) + the products
    of 8 columns of two rows with those of two tokens (<16 signed bytes> each): of the first row
    with both tokens, then of the second.
    """

    dot: Callable[[Any, Value, Value, Value, bool], Value]
    look_up: Callable[[Any, Value, list[int]], Value]
    gather: Callable[[Any, Value, Value], Value]
    wants_signed: bool
    multiply_pairs: Callable[[Any, Value, Value, Value], Value] | None = None
    multiply_short: Callable[[Any, Value, Value, bool], Value] | None = None
    widen: Callable[[Any, Value, Value], Value] | None = None


I8X32, I32X8 = ir.VectorType(I8, 32), ir.VectorType(I32, 8)
I32X4 = ir.VectorType(I32, 4)
I8X8, I16X8 = ir.VectorType(I8, 8), ir.VectorType(I16, 8)


def parts(e: Emitter, v: Value, n: int) -> list[Value]:
    """A vector cut into n."""
    size = v.type.count // n
    kind = ir.VectorType(I32, size)
    picks = [ir.Constant(kind, list(range(i * size, (i + 1) * size))) for i in range(n)]
    return [e.b.shuffle_vector(v, v, pick) for pick in picks]


def join(e: Emitter, vectors: list[Value]) -> Value:
    """Vectors, a power of two of them, as one."""
    while len(vectors) > 1:
        n = vectors[0].type.count * 2
        pick = ir.Constant(ir.VectorType(I32, n), list(range(n)))
        pairs = zip(vectors[::2], vectors[1::2], strict=True)
        vectors = [e.b.shuffle_vector(a, b, pick) for a, b in pairs]
    return vectors[0]


def _dot_avx512vnni(e: Emitter, acc: Value, w: Value, a: Value, is_signed: bool) -> Value:
    f = e.declare("llvm.x86.avx512.vpdpbusd.512", I32X16, [I32X16, I8X64, I8X64])
    return e.b.call(f, [acc, w, a])


def _dot_avxvnni(e: Emitter, acc: Value, w: Value, a: Value, is_signed: bool) -> Value:
    f = e.declare("llvm.x86.avx512.vpdpbusd.256", I32X8, [I32X8, I8X32, I8X32])
    halves = zip(parts(e, acc, 2), parts(e, w, 2), parts(e, a, 2), strict=True)
    return join(e, [e.b.call(f, list(half)) for half in halves])


def _dot_avx2(e: Emitter, acc: Value, w: Value, a: Value, is_signed: bool) -> Value:
    return _widen_avx2(e, acc, _multiply_short_avx2(e, w, a, is_signed))


def _multiply_short_avx2(e: Emitter, w: Value, a: Value, is_signed: bool) -> Value:
    """pmaddubsw adds two products in 16 bits and saturates: 2 x 127 x 127 fits. Signed weights are
    passed as their magnitudes, and their signs move to the activations."""
    pairs_of = e.declare("llvm.x86.avx2.pmadd.ub.sw", I16X16, [I8X32, I8X32])
    sign = e.declare("llvm.x86.avx2.psign.b", I8X32, [I8X32, I8X32])
    sums = []
    for weights, signed in zip(parts(e, w, 2), parts(e, a, 2), strict=True):
        if is_signed:
            signed = e.b.call(sign, [signed, weights])
            weights = e.b.call(sign, [weights, weights])
        sums.append(e.b.call(pairs_of, [weights, signed]))
    return join(e, sums)


def _widen_avx2(e: Emitter, acc: Value, short: Value) -> Value:
    add_pairs = e.declare("llvm.x86.avx2.pmadd.wd", I32X8, [I16X16, I16X16])
    ones = ir.Constant(I16X16, [1] * 16)
    sums = [e.b.call(add_pairs, [half, ones]) for half in parts(e, short, 2)]
    return e.b.add(acc, join(e, sums))


def _dot_neon(e: Emitter, acc: Value, w: Value, a: Value, is_signed: bool) -> Value:
    """Both sides signed: 0 to 127 is the same either way. Sums of two products fit 16 bits."""
    multiply = e.declare("llvm.aarch64.neon.smull.v8i16", I16X8, [I8X8, I8X8])
    add_pairs = e.declare("llvm.aarch64.neon.addp.v8i16", I16X8, [I16X8, I16X8])
    add_longs = e.declare("llvm.aarch64.neon.saddlp.v4i32.v8i16", I32X4, [I16X8])
    sums = []
    for weights, signed in zip(parts(e, w, 4), parts(e, a, 4), strict=True):
        halves = zip(parts(e, weights, 2), parts(e, signed, 2), strict=True)
        products = [e.b.call(multiply, list(half)) for half in halves]
        sums.append(e.b.call(add_longs, [e.b.call(add_pairs, products)]))
    return e.b.add(acc, join(e, sums))


def _dot_dotprod(e: Emitter, acc: Value, w: Value, a: Value, is_signed: bool) -> Value:
    """Both sides signed, as above."""
    sdot = e.declare("llvm.aarch64.neon.sdot.v4i32.v16i8", I32X4, [I32X4, I8X16, I8X16])
    quarters = zip(parts(e, acc, 4), parts(e, w, 4), parts(e, a, 4), strict=True)
    return join(e, [e.b.call(sdot, list(quarter)) for quarter in quarters])


def _multiply_pairs_i8mm(e: Emitter, acc: Value, rows: Value, tokens: Value) -> Value:
    smmla = e.declare("llvm.aarch64.neon.smmla.v4i32.v16i8", I32X4, [I32X4, I8X16, I8X16])
    return e.b.call(smmla, [acc, rows, tokens])


def _dot_generic(e: Emitter, acc: Value, w: Value, a: Value, is_signed: bool) -> Value:
    """In plain vector operations, for any processor: the four bytes of each lane in turn."""
    u, s = e.b.bitcast(w, I32X16), e.b.bitcast(a, I32X16)
    for byte in range(4):
        shift = e.constant(I32X16, 24 - 8 * byte)
        top = e.constant(I32X16, 24)
        acc = e.b.add(
            acc, e.b.mul(e.b.lshr(e.b.shl(u, shift), top), e.b.ashr(e.b.shl(s, shift), top))
        )
    return acc


def _look_up_avx512(e: Emitter, v: Value, table: list[int]) -> Value:
    shuffle = e.declare("llvm.x86.avx512.pshuf.b.512", I8X64, [I8X64, I8X64])
    return e.b.call(shuffle, [ir.Constant(I8X64, table * 4), v])


def _look_up_avx2(e: Emitter, v: Value, table: list[int]) -> Value:
    shuffle = e.declare("llvm.x86.avx2.pshuf.b", I8X32, [I8X32, I8X32])
    entries = ir.Constant(I8X32, table * 2)
    return join(e, [e.b.call(shuffle, [entries, half]) for half in parts(e, v, 2)])


def _look_up_neon(e: Emitter, v: Value, table: list[int]) -> Value:
    tbl = e.declare("llvm.aarch64.neon.tbl1.v16i8", I8X16, [I8X16, I8X16])
    entries = ir.Constant(I8X16, table)
    return join(e, [e.b.call(tbl, [entries, quarter]) for quarter in parts(e, v, 4)])


def _look_up_generic(e: Emitter, v: Value, table: list[int]) -> Value:
    """Sixteen comparisons and selections, in plain vector operations."""
    found = e.constant(I8X64, table[0])
    for i, value in enumerate(table[1:], start=1):
        is_i = e.b.icmp_unsigned("==", v, e.constant(I8X64, i))
        found = e.b.select(is_i, e.constant(I8X64, value), found)
    return found


def _gather_avx512(e: Emitter, table: Value, index: Value) -> Value:
    where, mask = e.b.bitcast(table, I8.as_pointer()), ir.VectorType(ir.IntType(1), 16)
    kinds = [I32X16, I8.as_pointer(), I32X16, mask, I32]
    f = e.declare("llvm.x86.avx512.mask.gather.dpi.512", I32X16, kinds)
    every, step = ir.Constant(mask, [1] * 16), ir.Constant(I32, 4)
    return e.b.call(f, [e.constant(I32X16, 0), where, index, every, step])


def _gather_avx2(e: Emitter, table: Value, index: Value) -> Value:
    where = e.b.bitcast(table, I8.as_pointer())
    kinds = [I32X8, I8.as_pointer(), I32X8, I32X8, I8]
    f = e.declare("llvm.x86.avx2.gather.d.d.256", I32X8, kinds)
    nothing, every = ir.Constant(I32X8, [0] * 8), ir.Constant(I32X8, [-1] * 8)
    halves = parts(e, index, 2)
    found = [e.b.call(f, [nothing, where, half, every, ir.Constant(I8, 4)]) for half in halves]
    return join(e, found)


def _gather_generic(e: Emitter, table: Value, index: Value) -> Value:
    """A load for each lane."""
    begin, found = e.b.ptrtoint(table, I64), ir.Constant(I32X16, ir.Undefined)
    for i in range(16):
        lane = ir.Constant(I32, i)
        step = e.b.zext(e.b.extract_element(index, lane), I64)
        where = e.b.add(begin, e.b.mul(step, ir.Constant(I64, 4)))
        word = e.b.load(e.b.inttoptr(where, I32.as_pointer()))
        found = e.b.insert_element(found, word, lane)
    return found


FAMILIES = {
    "avx512vnni": Family(_dot_avx512vnni, _look_up_avx512, _gather_avx512, wants_signed=False),
    "avxvnni": Family(_dot_avxvnni, _look_up_avx2, _gather_avx2, wants_signed=False),
    "avx2": Family(
        _dot_avx2,
        _look_up_avx2,
        _gather_avx2,
        wants_signed=True,
        multiply_short=_multiply_short_avx2,
        widen=_widen_avx2,
    ),
    "i8mm": Family(_dot_dotprod, _look_up_neon, _gather_generic, True, _multiply_pairs_i8mm),
    "dotprod": Family(_dot_dotprod, _look_up_neon, _gather_generic, wants_signed=True),
    "neon": Family(_dot_neon, _look_up_neon, _gather_generic, wants_signed=True),
    "generic": Family(_dot_generic, _look_up_generic, _gather_generic, wants_signed=False),
}
