"""A small vocabulary over LLVM vectors, for kernels that are written as emitted code.

Vectors are 512 bits wide in the program; LLVM splits them where registers are narrower. Only the
integer dot product differs by processor family.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from llvmlite import ir

from kernels.cpu import isa

I8, I16, I32, I64 = ir.IntType(8), ir.IntType(16), ir.IntType(32), ir.IntType(64)
F32, F16 = ir.FloatType(), ir.HalfType()
F32X16, I32X16 = ir.VectorType(F32, 16), ir.VectorType(I32, 16)
F16X16, I16X16 = ir.VectorType(F16, 16), ir.VectorType(I16, 16)
I8X64, I16X32 = ir.VectorType(I8, 64), ir.VectorType(I16, 32)

Value = Any  # llvmlite's values carry no useful static types


class Emit:
    """Emits vector code into one function through `builder`. Addresses are i64 values."""

    def __init__(self, builder: Any) -> None:
        self.b = builder

    # -- scalars and addresses ---------------------------------------------------------------
    def i64(self, n: int) -> Value:
        return ir.Constant(I64, n)

    def at(self, address: Value, offset: int) -> Value:
        """The address `offset` bytes further on."""
        return self.b.add(address, self.i64(offset)) if offset else address

    def load(self, kind: Any, address: Value, align: int = 1) -> Value:
        return self.b.load(self.b.inttoptr(address, kind.as_pointer()), align=align)

    def store(self, value: Value, address: Value, align: int = 1) -> None:
        self.b.store(value, self.b.inttoptr(address, value.type.as_pointer()), align=align)

    # -- vectors -----------------------------------------------------------------------------
    def splat(self, scalar: Value, lanes: int = 16) -> Value:
        vector = ir.VectorType(scalar.type, lanes)
        one = self.b.insert_element(ir.Constant(vector, ir.Undefined), scalar, ir.Constant(I32, 0))
        mask = ir.Constant(ir.VectorType(I32, lanes), [0] * lanes)
        return self.b.shuffle_vector(one, ir.Constant(vector, ir.Undefined), mask)

    def constant(self, vector: Any, value: float) -> Value:
        return ir.Constant(vector, [value] * vector.count)

    def load_splat_f32(self, address: Value) -> Value:
        return self.splat(self.load(F32, address, 4))

    def load_splat_4x8(self, address: Value) -> Value:
        """Four consecutive bytes, repeated to fill <64 x i8>."""
        return self.b.bitcast(self.splat(self.load(I32, address, 4)), I8X64)

    def load_f16(self, address: Value) -> Value:
        """Sixteen halfs as <16 x float>."""
        return self.b.fpext(self.load(F16X16, address, 2), F32X16)

    def load_bf16(self, address: Value) -> Value:
        """Sixteen bfloat16 as <16 x float>: the upper half of a float's bits."""
        wide = self.b.zext(self.load(I16X16, address, 2), I32X16)
        return self.b.bitcast(self.b.shl(wide, self.constant(I32X16, 16)), F32X16)

    def load_f32(self, address: Value) -> Value:
        return self.load(F32X16, address, 4)

    def fma(self, a: Value, b: Value, c: Value) -> Value:
        """a * b + c, rounded once."""
        name = f"llvm.fma.v{a.type.count}f32"
        return self.b.call(self._declare(name, a.type, [a.type] * 3), [a, b, c])

    def to_f32(self, v: Value) -> Value:
        return self.b.sitofp(v, F32X16)

    def bits(self, v: Value, first: int, count: int) -> Value:
        """Bits first .. first + count - 1 of each byte of <64 x i8>."""
        return self.move_bits(v, first, count, 0)

    def move_bits(self, v: Value, first: int, count: int, to: int) -> Value:
        """The same bits, moved to begin at bit `to`."""
        if first > to:
            v = self.b.lshr(v, self.constant(I8X64, first - to))
        elif first < to:
            v = self.b.shl(v, self.constant(I8X64, to - first))
        if to == 0 and first + count == 8:
            return v  # nothing is left above
        return self.b.and_(v, self.constant(I8X64, ((1 << count) - 1) << to))

    def look_up(self, v: Value, table: list[int]) -> Value:
        """table[v] for each byte of <64 x i8>; 16 entries from 0 to 255."""
        return _LOOK_UP[isa()](self, v, table)

    def dot(self, acc: Value, unsigned: Value, signed: Value) -> Value:
        """acc (<16 x i32>) + sums of four products of u8 (<64 x i8>) and i8 (<64 x i8>)."""
        return _DOT[isa()](self, acc, unsigned, signed)

    # -- control -----------------------------------------------------------------------------
    @contextmanager
    def loop(self, count: Value) -> Iterator[Value]:
        """Runs the body `count` times; yields the index, an i64."""
        entry, function = self.b.block, self.b.function
        head = function.append_basic_block("loop.head")
        body = function.append_basic_block("loop.body")
        done = function.append_basic_block("loop.done")
        self.b.branch(head)
        self.b.position_at_end(head)
        index = self.b.phi(I64)
        index.add_incoming(self.i64(0), entry)
        self.b.cbranch(self.b.icmp_signed("<", index, count), body, done)
        self.b.position_at_end(body)
        yield index
        index.add_incoming(self.b.add(index, self.i64(1)), self.b.block)
        self.b.branch(head)
        self.b.position_at_end(done)

    def stack(self, kind: Any, count: int) -> Value:
        """The address of room for `count` values on the stack, aligned to a cache line."""
        with self.b.goto_entry_block():
            room = self.b.alloca(kind, count)
            room.align = 64
        return self.b.ptrtoint(room, I64)

    def variable(self, initial: Value) -> Variable:
        """A mutable value that the optimiser keeps in a register."""
        with self.b.goto_entry_block():
            slot = self.b.alloca(initial.type)
            slot.align = 64
        self.b.store(initial, slot)
        return Variable(self.b, slot)

    def _declare(self, name: str, result: Any, args: list[Any]) -> Any:
        module = self.b.module
        found = module.globals.get(name)
        return found or ir.Function(module, ir.FunctionType(result, args), name)


class Variable:
    """A stack slot that only ever lives in a register."""

    def __init__(self, builder: Any, slot: Any) -> None:
        self._b, self._slot = builder, slot

    def get(self) -> Value:
        return self._b.load(self._slot)

    def set(self, value: Value) -> None:
        self._b.store(value, self._slot)


def _dot_avx512vnni(e: Emit, acc: Value, unsigned: Value, signed: Value) -> Value:
    f = e._declare("llvm.x86.avx512.vpdpbusd.512", I32X16, [I32X16, I8X64, I8X64])
    return e.b.call(f, [acc, unsigned, signed])


def _halves(e: Emit, v: Value) -> list[Value]:
    half = v.type.count // 2
    pick = lambda first: ir.Constant(ir.VectorType(I32, half), list(range(first, first + half)))  # noqa: E731
    return [e.b.shuffle_vector(v, v, pick(0)), e.b.shuffle_vector(v, v, pick(half))]


def _join(e: Emit, low: Value, high: Value) -> Value:
    n = low.type.count * 2
    return e.b.shuffle_vector(low, high, ir.Constant(ir.VectorType(I32, n), list(range(n))))


def _dot_avx2(e: Emit, acc: Value, unsigned: Value, signed: Value) -> Value:
    """By widening: the saturating u8 x i8 instruction would clip pairs beyond 16 bits, so even
    and odd bytes are multiplied as 16-bit numbers and added in 32 bits (pmaddwd)."""
    i8x32, i16x16, i32x8 = ir.VectorType(I8, 32), I16X16, ir.VectorType(I32, 8)
    madd = e._declare("llvm.x86.avx2.pmadd.wd", i32x8, [i16x16, i16x16])
    low_byte = ir.Constant(i16x16, [0x00FF] * 16)
    eight = ir.Constant(i16x16, [8] * 16)
    sums = []
    for u, s in zip(_halves(e, unsigned), _halves(e, signed), strict=True):
        assert u.type == i8x32
        u16, s16 = e.b.bitcast(u, i16x16), e.b.bitcast(s, i16x16)
        even = e.b.call(madd, [e.b.and_(u16, low_byte), e.b.ashr(e.b.shl(s16, eight), eight)])
        odd = e.b.call(madd, [e.b.lshr(u16, eight), e.b.ashr(s16, eight)])
        sums.append(e.b.add(even, odd))
    return e.b.add(acc, _join(e, *sums))


def _dot_neon(e: Emit, acc: Value, unsigned: Value, signed: Value) -> Value:
    """sdot needs both signed: u = (u ^ 0x80) + 128, and 128 times the sum of the signed bytes is
    a dot product with ones."""
    i8x16, i32x4 = ir.VectorType(I8, 16), ir.VectorType(I32, 4)
    sdot = e._declare("llvm.aarch64.neon.sdot.v4i32.v16i8", i32x4, [i32x4, i8x16, i8x16])
    flipped = e.b.xor(unsigned, e.constant(I8X64, 0x80))
    zero, ones = ir.Constant(i32x4, [0] * 4), ir.Constant(i8x16, [1] * 16)
    parts = []
    for i in range(4):
        pick8 = ir.Constant(ir.VectorType(I32, 16), list(range(16 * i, 16 * i + 16)))
        pick32 = ir.Constant(ir.VectorType(I32, 4), list(range(4 * i, 4 * i + 4)))
        u, s = (
            e.b.shuffle_vector(flipped, flipped, pick8),
            e.b.shuffle_vector(signed, signed, pick8),
        )
        a = e.b.shuffle_vector(acc, acc, pick32)
        total = e.b.call(sdot, [zero, s, ones])
        a = e.b.add(a, e.b.shl(total, ir.Constant(i32x4, [7] * 4)))
        parts.append(e.b.call(sdot, [a, u, s]))
    return _join(e, _join(e, parts[0], parts[1]), _join(e, parts[2], parts[3]))


def _dot_generic(e: Emit, acc: Value, unsigned: Value, signed: Value) -> Value:
    """In plain vector operations, for any processor: the four bytes of each lane in turn."""
    u, s = e.b.bitcast(unsigned, I32X16), e.b.bitcast(signed, I32X16)
    for byte in range(4):
        shift = e.constant(I32X16, 24 - 8 * byte)
        top = e.constant(I32X16, 24)
        acc = e.b.add(
            acc, e.b.mul(e.b.lshr(e.b.shl(u, shift), top), e.b.ashr(e.b.shl(s, shift), top))
        )
    return acc


def _look_up_avx512(e: Emit, v: Value, table: list[int]) -> Value:
    shuffle = e._declare("llvm.x86.avx512.pshuf.b.512", I8X64, [I8X64, I8X64])
    return e.b.call(shuffle, [ir.Constant(I8X64, table * 4), v])


def _look_up_avx2(e: Emit, v: Value, table: list[int]) -> Value:
    half = ir.VectorType(I8, 32)
    shuffle = e._declare("llvm.x86.avx2.pshuf.b", half, [half, half])
    low, high = (e.b.call(shuffle, [ir.Constant(half, table * 2), i]) for i in _halves(e, v))
    return _join(e, low, high)


def _look_up_neon(e: Emit, v: Value, table: list[int]) -> Value:
    quarter = ir.VectorType(I8, 16)
    tbl = e._declare("llvm.aarch64.neon.tbl1.v16i8", quarter, [quarter, quarter])
    parts = []
    for i in range(4):
        pick = ir.Constant(ir.VectorType(I32, 16), list(range(16 * i, 16 * i + 16)))
        index = e.b.shuffle_vector(v, v, pick)
        parts.append(e.b.call(tbl, [ir.Constant(quarter, table), index]))
    return _join(e, _join(e, parts[0], parts[1]), _join(e, parts[2], parts[3]))


def _look_up_generic(e: Emit, v: Value, table: list[int]) -> Value:
    """By elimination: sixteen comparisons, but in plain vector operations."""
    found = e.constant(I8X64, table[0])
    for i, value in enumerate(table[1:], start=1):
        is_i = e.b.icmp_unsigned("==", v, e.constant(I8X64, i))
        found = e.b.select(is_i, e.constant(I8X64, value), found)
    return found


_LOOK_UP: dict[str, Callable[[Emit, Value, list[int]], Value]] = {
    "avx512vnni": _look_up_avx512,
    "avx2": _look_up_avx2,
    "neon": _look_up_neon,
    "generic": _look_up_generic,
}

_DOT: dict[str, Callable[[Emit, Value, Value, Value], Value]] = {
    "avx512vnni": _dot_avx512vnni,
    "avx2": _dot_avx2,
    "neon": _dot_neon,
    "generic": _dot_generic,
}
