"""Recorded kernel calls, replayed as one call.

A call of a compiled function from Python takes microseconds, most of them for finding the types of
its arguments. Calls that are `launch`ed during a `recording` are kept with their arguments as
compiled code takes them, addresses and numbers, and a Program makes all of them at once. It stays
valid as long as the arrays stay the same ones; their contents may change.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from llvmlite import binding, ir
from numba import types
from numba.core.typing.typeof import typeof
from numba.extending import intrinsic

from kernels.emit.jit import kernel
from kernels.emit.vectors import I64

SLOT = 8  # bytes of an argument in memory, whatever its type
POINTER = ir.IntType(8).as_pointer()


class Call(NamedTuple):
    """A kernel and the arguments it was called with."""

    kernel: Any
    args: tuple[Any, ...]


class _Recording(threading.local):
    calls: list[Call] | None = None


_recording = _Recording()


def launch(kernel: Any, *args: Any) -> None:
    """Calls a kernel, and records the call during a `recording`."""
    kernel(*args)
    if _recording.calls is not None:
        _recording.calls.append(Call(kernel, args))


@contextmanager
def recording() -> Iterator[list[Call]]:
    """Yields a list that grows by each call this thread launches while the context lasts."""
    calls: list[Call] = []
    before, _recording.calls = _recording.calls, calls
    try:
        yield calls
    finally:
        _recording.calls = before


class Program:
    """Recorded calls, in their order. Keeps their arrays alive."""

    def __init__(self, calls: Sequence[Call]) -> None:
        self._calls = list(calls)
        steps, self._slots = [], []
        for call in calls:
            found = call.kernel.overloads[tuple(typeof(arg) for arg in call.args)]
            entry, thunk = _entry(found)
            self._slots.append(_slots(entry, call.args, found.signature.args))
            steps.append((thunk, self._slots[-1].ctypes.data))
        self._steps = np.array(steps, np.int64).reshape(-1, 2)

    def run(self) -> None:
        """Makes all calls, without the GIL. Raises RuntimeError where a kernel fails."""
        if _run(self._steps):
            raise RuntimeError(
                "a kernel failed in the middle of a step; this is an error of the program, which "
                "cannot go on with what it had computed"
            )


# By the id of a result of compiling. The result is kept with it, so that its id is not reused.
_ENTRIES: dict[int, tuple[Any, int, int]] = {}


def _entry(found: Any) -> tuple[int, int]:
    """The address of a compiled function, and of the thunk that calls it."""
    if id(found) not in _ENTRIES:
        packer = found.target_context.get_arg_packer(found.signature.args)
        entry = found.library.get_pointer_to_function(found.fndesc.llvm_func_name)
        _ENTRIES[id(found)] = found, entry, _thunk(*packer.argument_types)
    return _ENTRIES[id(found)][1:]


def _slots(entry: int, args: Sequence[Any], kinds: Sequence[Any]) -> np.ndarray:
    """The address of a compiled function and its arguments, one slot each."""
    flat = [n for arg, kind in zip(args, kinds, strict=True) for n in _flattened(arg, kind)]
    packed = b"".join(value.tobytes().ljust(SLOT, b"\0") for value in flat)
    return np.frombuffer(np.int64(entry).tobytes() + packed, np.int64)


def _flattened(value: Any, kind: Any) -> Iterator[Any]:
    """The NumPy scalars that a value is passed as to compiled code, in numba's order: an array is
    its owner (none: a Program keeps it alive), parent, sizes, data, shape and strides."""
    if isinstance(kind, types.Array):
        yield from np.array(
            [0, 0, value.size, value.itemsize, value.ctypes.data, *value.shape, *value.strides],
            np.int64,
        )
    elif isinstance(kind, types.BaseTuple):
        for item, inner in zip(value, kind, strict=True):
            yield from _flattened(item, inner)
    elif isinstance(kind, types.Boolean):
        yield np.int8(value)
    elif isinstance(kind, types.Integer):
        yield np.int64(value) if kind.bitwidth == 64 else np.dtype(str(kind)).type(value)
    elif isinstance(kind, types.Float):
        yield np.dtype(str(kind)).type(value)
    else:
        raise TypeError(f"a {kind} cannot be recorded as an argument of a kernel")


_ENGINES: list[Any] = []  # compiled code lives as long as its engine


@cache
def _thunk(*kinds: Any) -> int:
    """The address of `i32 thunk(i64 slots)`, which calls the function in the first slot with the
    others as numba's functions want them: where to put a result and an error, then everything. Its
    result is the function's status."""
    module = ir.Module("thunk")
    module.triple = binding.get_process_triple()
    status = ir.IntType(32)
    wanted = ir.FunctionType(status, [POINTER.as_pointer(), POINTER.as_pointer(), *kinds])
    thunk = ir.Function(module, ir.FunctionType(status, [I64]), "thunk")
    builder = ir.IRBuilder(thunk.append_basic_block("entry"))

    def load(i: int, kind: Any) -> Any:
        where = builder.add(thunk.args[0], ir.Constant(I64, SLOT * i))
        return builder.load(builder.inttoptr(where, kind.as_pointer()))

    results = [builder.alloca(POINTER), builder.alloca(POINTER)]
    entry = builder.inttoptr(load(0, I64), wanted.as_pointer())
    builder.ret(builder.call(entry, [*results, *(load(1 + i, k) for i, k in enumerate(kinds))]))
    machine = binding.Target.from_triple(module.triple).create_target_machine(opt=2)
    engine = binding.create_mcjit_compiler(binding.parse_assembly(str(module)), machine)
    engine.finalize_object()
    _ENGINES.append(engine)
    return int(engine.get_function_address("thunk"))


@intrinsic
def _call(typingctx: Any, thunk: Any, slots: Any) -> Any:
    def codegen(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        kind = ir.FunctionType(ir.IntType(32), [I64])
        return builder.call(builder.inttoptr(values[0], kind.as_pointer()), values[1:])

    return types.int32(types.int64, types.int64), codegen


@kernel
def _run(steps):
    for i in range(steps.shape[0]):
        status = _call(steps[i, 0], steps[i, 1])
        if status != 0:
            return status
    return 0
