"""Functions of the C library that kernels call: the clock, sleeping, yielding, system calls."""

from __future__ import annotations

from typing import Any

from llvmlite import ir

from kernels.emit.jit import intrinsic
from kernels.emit.later import cgutils, types
from kernels.emit.vectors import I32, I64

_CLOCK_MONOTONIC = 1  # on Linux: what Python's time.perf_counter_ns reads there


def _calls(name: str, result: Any, args: list[Any]) -> Any:
    """The emitter of a call of a C function."""

    def codegen(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        kind = ir.FunctionType(result, args)
        return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), values)

    return codegen


@intrinsic
def syscall(typingctx: Any, a: Any, b: Any, c: Any, d: Any, e: Any, f: Any) -> Any:
    """The system call of six numbers."""
    return types.int64(*[types.int64] * 6), _calls("syscall", I64, [I64] * 6)


@intrinsic
def usleep(typingctx: Any, microseconds: Any) -> Any:
    """Sleeps."""
    return types.int32(types.uint32), _calls("usleep", I32, [I32])


@intrinsic
def sched_yield(typingctx: Any) -> Any:
    """Leaves the core to another thread that is ready to run."""
    return types.int32(), _calls("sched_yield", I32, [])


@intrinsic
def send(typingctx: Any, fd: Any, data: Any, n_bytes: Any, flags: Any) -> Any:
    """Sends bytes at an address through a socket; returns how many were taken, -1 for an error."""
    return types.int64(*[types.int64] * 4), _socket_call("send")


@intrinsic
def recv(typingctx: Any, fd: Any, data: Any, n_bytes: Any, flags: Any) -> Any:
    """Reads bytes from a socket to an address; returns how many, 0 at the end, -1 for an error."""
    return types.int64(*[types.int64] * 4), _socket_call("recv")


@intrinsic
def write(typingctx: Any, fd: Any, data: Any, n_bytes: Any) -> Any:
    """Writes bytes at an address to a file; returns how many were taken, -1 for an error."""
    call = _calls("write", I64, [I32, I64, I64])

    def codegen(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return call(context, builder, signature, [builder.trunc(values[0], I32), *values[1:]])

    return types.int64(*[types.int64] * 3), codegen


def _socket_call(name: str) -> Any:
    call = _calls(name, I64, [I32, I64, I64, I32])

    def codegen(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        fd, data, n_bytes, flags = values
        ints = builder.trunc(fd, I32), builder.trunc(flags, I32)
        return call(context, builder, signature, [ints[0], data, n_bytes, ints[1]])

    return codegen


@intrinsic
def errno(typingctx: Any) -> Any:
    """The error of this thread's last call that failed; Linux only."""

    def codegen(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        kind = ir.FunctionType(I32.as_pointer(), [])
        function = cgutils.get_or_insert_function(builder.module, kind, "__errno_location")
        return builder.sext(builder.load(builder.call(function, [])), I64)

    return types.int64(), codegen


@intrinsic
def clock_ns(typingctx: Any) -> Any:
    """Nanoseconds of a clock that only goes forward; Linux only."""

    def codegen(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        time = cgutils.alloca_once(builder, ir.LiteralStructType([I64, I64]))
        kind = ir.FunctionType(I32, [I32, time.type])
        function = cgutils.get_or_insert_function(builder.module, kind, "clock_gettime")
        builder.call(function, [ir.Constant(I32, _CLOCK_MONOTONIC), time])
        seconds, rest = (builder.load(cgutils.gep_inbounds(builder, time, 0, i)) for i in range(2))
        return builder.add(builder.mul(seconds, ir.Constant(I64, 10**9)), rest)

    return types.int64(), codegen
