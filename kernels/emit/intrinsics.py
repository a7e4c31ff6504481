"""Operations that numba lacks: addresses, atomics, bit casts, half floats, an addition and
multiplication in one, the spin-loop pause."""

from __future__ import annotations

import sys
from typing import Any

from llvmlite import ir

from kernels.emit.jit import intrinsic
from kernels.emit.later import cgutils, types
from kernels.emit.vectors import F16, F32, I8, I16, I32, I64


@intrinsic
def address(typingctx: Any, array: Any) -> Any:
    """The address of an array's first element, an int64."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        struct = context.make_array(signature.args[0])(context, builder, args[0])
        return builder.ptrtoint(struct.data, I64)

    return types.int64(array), codegen


def _pointer(builder: Any, address: Any, kind: Any) -> Any:
    return builder.inttoptr(address, kind.as_pointer())


@intrinsic
def atomic_load(typingctx: Any, where: Any) -> Any:
    """The int64 at an address, read after all that was written before its last store."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.load_atomic(_pointer(builder, args[0], I64), "seq_cst", 8)

    return types.int64(types.int64), codegen


@intrinsic
def atomic_store(typingctx: Any, where: Any, value: Any) -> Any:
    """Stores an int64 at an address, after everything before it."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        builder.store_atomic(args[1], _pointer(builder, args[0], I64), "seq_cst", 8)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), codegen


@intrinsic
def atomic_add(typingctx: Any, where: Any, value: Any) -> Any:
    """Adds to the int64 at an address; returns the value before."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.atomic_rmw("add", _pointer(builder, args[0], I64), args[1], "seq_cst")

    return types.int64(types.int64, types.int64), codegen


@intrinsic
def atomic_exchange(typingctx: Any, where: Any, value: Any) -> Any:
    """Stores an int64 at an address; returns the value before."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.atomic_rmw("xchg", _pointer(builder, args[0], I64), args[1], "seq_cst")

    return types.int64(types.int64, types.int64), codegen


@intrinsic
def atomic_replace(typingctx: Any, where: Any, expected: Any, value: Any) -> Any:
    """Stores an int64 at an address if that holds `expected`; returns whether it did."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        slot = _pointer(builder, args[0], I64)
        pair = builder.cmpxchg(slot, args[1], args[2], "seq_cst", "seq_cst")
        return builder.extract_value(pair, 1)

    return types.boolean(types.int64, types.int64, types.int64), codegen


@intrinsic
def load_i64(typingctx: Any, where: Any) -> Any:
    """The int64 at any address."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.load(_pointer(builder, args[0], I64), align=1)

    return types.int64(types.int64), codegen


@intrinsic
def store_i64(typingctx: Any, where: Any, value: Any) -> Any:
    """Stores an int64 at any address."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        builder.store(args[1], _pointer(builder, args[0], I64), align=1)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), codegen


@intrinsic
def copy_bytes(typingctx: Any, to: Any, source: Any, n_bytes: Any) -> Any:
    """Copies bytes from one address to another; the two places do not overlap."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        to, source = (_pointer(builder, arg, I8) for arg in args[:2])
        cgutils.raw_memcpy(builder, to, source, args[2], 1, align=1)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64), codegen


@intrinsic
def call_c(typingctx: Any, function: Any, args: Any) -> Any:
    """Calls the C function at an address with a tuple of pointers, sizes and ints, all int64; the
    result is a pointer or a size."""

    def codegen(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return _call_c(builder, values, len(args), I64)

    return types.int64(types.int64, args), codegen


@intrinsic
def call_c_int(typingctx: Any, function: Any, args: Any) -> Any:
    """Calls as `call_c` does a function whose result is an int."""

    def codegen(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return builder.sext(_call_c(builder, values, len(args), I32), I64)

    return types.int64(types.int64, args), codegen


def _call_c(builder: Any, values: Any, n_args: int, result: Any) -> Any:
    kind = ir.FunctionType(result, [I64] * n_args)
    given = [builder.extract_value(values[1], i) for i in range(n_args)]
    return builder.call(builder.inttoptr(values[0], kind.as_pointer()), given)


@intrinsic
def pause(typingctx: Any) -> Any:
    """Tells the core that it runs a spin loop."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        name = "llvm.x86.sse2.pause" if sys.platform != "darwin" and _is_x86() else None
        if name:
            kind = ir.FunctionType(ir.VoidType(), [])
            builder.call(cgutils.get_or_insert_function(builder.module, kind, name), [])
        return context.get_dummy_value()

    return types.void(), codegen


def _is_x86() -> bool:
    import platform

    return platform.machine().lower() in ("x86_64", "amd64", "i686")


@intrinsic
def fma(typingctx: Any, a: Any, b: Any, c: Any) -> Any:
    """a * b + c, rounded once: of float32 numbers, or of float64 ones."""
    kind = types.float32 if a == b == c == types.float32 else types.float64

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.fma(*args)

    return kind(kind, kind, kind), codegen


@intrinsic
def f32_bits(typingctx: Any, value: Any) -> Any:
    """The bits of a float32 as an int32."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.bitcast(args[0], I32)

    return types.int32(types.float32), codegen


@intrinsic
def f32_from_bits(typingctx: Any, value: Any) -> Any:
    """The float32 with the bits of an int32."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.bitcast(args[0], F32)

    return types.float32(types.int32), codegen


@intrinsic
def f16_to_f32(typingctx: Any, bits: Any) -> Any:
    """The float32 value of a half float's 16 bits."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.fpext(builder.bitcast(args[0], F16), F32)

    return types.float32(types.uint16), codegen


@intrinsic
def f32_to_f16(typingctx: Any, value: Any) -> Any:
    """The 16 bits of the half float nearest to a float32."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.bitcast(builder.fptrunc(args[0], F16), I16)

    return types.uint16(types.float32), codegen
