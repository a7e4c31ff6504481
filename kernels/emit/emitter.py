"""A small vocabulary over LLVM vectors, for kernels that are written as emitted code.

Vectors are 512 bits wide in the program; LLVM splits them where registers are narrower. Only the
integer dot product differs by processor family.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from llvmlite import ir

from kernels.arrays import CACHE_LINE
from kernels.cpu import isa
from kernels.emit.families import FAMILIES, Family
from kernels.emit.vectors import (
    BF16X32,
    F16X16,
    F32,
    F32X16,
    I8X64,
    I32,
    I64,
    Value,
)


class Emit:
    """Emits vector code into one function through `builder`, for a family of processors: that of
    this one, unless another is named. Addresses are i64 values."""

    def __init__(self, builder: Any, family: Family | None = None) -> None:
        self.b = builder
        self.family = family or FAMILIES[isa()]

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

    def prefetch(self, address: Value, n_bytes: int = 1) -> None:
        """Prefetches the cache lines of bytes that will be read; any address is allowed."""
        kind = ir.IntType(8).as_pointer()
        f = self.declare("llvm.prefetch.p0", ir.VoidType(), [kind, I32, I32, I32])
        rw, locality, is_data = (ir.Constant(I32, n) for n in (0, 1, 1))
        for line in range(0, n_bytes, CACHE_LINE):
            where = self.b.inttoptr(self.at(address, line), kind)
            self.b.call(f, [where, rw, locality, is_data])

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

    def load_f32(self, address: Value) -> Value:
        return self.load(F32X16, address, 4)

    def fma(self, a: Value, b: Value, c: Value) -> Value:
        """a * b + c, rounded once; of floats or vectors of them."""
        kind = "f32" if a.type == F32 else f"v{a.type.count}f32"
        name = f"llvm.fma.{kind}"
        return self.b.call(self.declare(name, a.type, [a.type] * 3), [a, b, c])

    def larger(self, a: Value, b: Value) -> Value:
        """The larger of two floats, or of each lane; b where one is not a number."""
        return self.b.select(self.b.fcmp_ordered(">", a, b), a, b)

    def fold_lanes(self, v: Value, join: Callable[[Value, Value], Value]) -> Value:
        """Joins all lanes to a scalar: one half with the other, until one lane is left."""
        while (n := v.type.count) > 1:
            halves = [
                self.b.shuffle_vector(v, v, ir.Constant(ir.VectorType(I32, n // 2), lanes))
                for lanes in (list(range(n // 2)), list(range(n // 2, n)))
            ]
            v = join(*halves)
        return self.b.extract_element(v, ir.Constant(I32, 0))

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
            return v  # no bits are left above
        return self.b.and_(v, self.constant(I8X64, ((1 << count) - 1) << to))

    def look_up(self, v: Value, table: list[int]) -> Value:
        """table[v] for each byte of <64 x i8>; 16 entries from 0 to 255."""
        return self.family.look_up(self, v, table)

    def table(self, name: str, entries: list[int]) -> Value:
        """A pointer to a table of words of 4 bytes, which a module has once by its name."""
        found = self.b.module.globals.get(name)
        if found is None:
            kind = ir.ArrayType(I32, len(entries))
            found = ir.GlobalVariable(self.b.module, kind, name)
            found.initializer = ir.Constant(kind, entries)
            found.linkage, found.global_constant, found.align = "internal", True, CACHE_LINE
        return found

    def gather(self, table: Value, index: Value) -> Value:
        """table[index] of each lane of <16 x i32>: words of a `table`."""
        return self.family.gather(self, table, index)

    def dot(self, acc: Value, weights: Value, signed: Value, *, is_signed: bool = False) -> Value:
        """acc (<16 x i32>) + sums of four products of weights and signed bytes (<64 x i8> each).

        Weights are 0 to 127, or any unsigned bytes where the family does not `want_signed`, or any
        signed ones (`is_signed`) where it does.
        """
        return self.family.dot(self, acc, weights, signed, is_signed)

    def dot_bf16(self, weights: Value, pair: Value, acc: Value) -> Value:
        """Both products of the two bfloat16 in each lane of weights and pair (<16 x i32> each), of
        the upper halves first, + acc (<16 x float>). Only where `has_bf16_dot`."""
        f = self.declare("llvm.x86.avx512bf16.dpbf16ps.512", F32X16, [F32X16, BF16X32, BF16X32])
        return self.b.call(f, [acc, *(self.b.bitcast(v, BF16X32) for v in (weights, pair))])

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
        """Allocates `count` values on the stack, aligned to a cache line; returns their address."""
        with self.b.goto_entry_block():
            slots = self.b.alloca(kind, count)
            slots.align = 64
        return self.b.ptrtoint(slots, I64)

    def variable(self, initial: Value) -> Variable:
        """Makes a mutable value that the optimiser keeps in a register."""
        with self.b.goto_entry_block():
            slot = self.b.alloca(initial.type)
            slot.align = 64
        self.b.store(initial, slot)
        return Variable(self.b, slot)

    def declare(self, name: str, result: Any, args: list[Any]) -> Any:
        module = self.b.module
        found = module.globals.get(name)
        return found or ir.Function(module, ir.FunctionType(result, args), name)


def emitted_function(
    module: Any, name: str, n_args: int, emit: Callable[[Emit, Any], None],
    family: Family | None = None,
) -> Any:  # fmt: skip
    """Returns the function of this name in a module, and emits it there the first time. It takes
    `n_args` int64, returns nothing, and is not inlined. `family` is that of this processor unless
    the code is for another one."""
    found = module.globals.get(name)
    if found:
        return found
    kind = ir.FunctionType(ir.VoidType(), [I64] * n_args)
    function = ir.Function(module, kind, name)
    function.linkage = "internal"
    function.attributes.add("noinline")
    builder = ir.IRBuilder(function.append_basic_block("entry"))
    emit(Emit(builder, family), function.args)
    builder.ret_void()
    return function


def call_one_of(
    builder: Any, number: Value, functions: Iterable[tuple[int, Any]], args: Sequence[Value]
) -> None:
    """Emits a call of the function that belongs to a number (int64), with these arguments; of none
    where there is none for it."""
    done = builder.append_basic_block("called")
    switch = builder.switch(number, done)
    for n, function in functions:
        case = builder.append_basic_block(f"call.{n}")
        switch.add_case(ir.Constant(I64, n), case)
        builder.position_at_end(case)
        builder.call(function, args)
        builder.branch(done)
    builder.position_at_end(done)


class Variable:
    """A stack slot that the optimiser turns into a register."""

    def __init__(self, builder: Any, slot: Any) -> None:
        self._b, self._slot = builder, slot

    def get(self) -> Value:
        return self._b.load(self._slot)

    def set(self, value: Value) -> None:
        self._b.store(value, self._slot)
