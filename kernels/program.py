"""Recorded kernel calls, replayed as one call.

A call from Python takes microseconds, most of them for finding the kinds of its arguments. Calls
that are `launch`ed during a `recording` are kept with their arguments in slots, addresses and
numbers, and a Program makes all of them at once. It stays valid as long as the arrays stay the same
ones; their contents may change.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir

from kernels.emit.intrinsics import load_i64
from kernels.emit.jit import intrinsic, kernel
from kernels.emit.later import types
from kernels.emit.vectors import I32, I64
from kernels.kernel import Kernel


class Call(NamedTuple):
    """A kernel and the arguments it was called with."""

    kernel: Kernel
    args: tuple[Any, ...]


class _Recording(threading.local):
    calls: list[Call] | None = None


_recording = _Recording()


def launch(kernel: Kernel, *args: Any) -> None:
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
    """Recorded calls, in their order. Keeps their arrays alive.

    A kernel whose result is not 0 stops it: what has to be done then is Python's work.
    """

    def __init__(self, calls: Sequence[Call]) -> None:
        self._calls = list(calls)
        entries = [(call.kernel.entry(call.args), call.args) for call in calls]
        slots = [bytearray(entry.slots(args)) for entry, args in entries]  # results go there
        self._slots = [np.frombuffer(each, np.uint8) for each in slots]
        steps = [
            (entry.address, slots.ctypes.data)
            for (entry, _), slots in zip(entries, self._slots, strict=True)
        ]
        self._at = np.zeros(1, np.int64)
        self._run = _run.bind(np.array(steps, np.int64).reshape(-1, 2), self._at)

    def run(self, first: int = 0) -> int | None:
        """Makes the calls from `first` on, without the GIL; returns the number of the one that
        stopped it, None at the end. Raises RuntimeError where a kernel fails."""
        self._at[0] = first
        status = self._run()
        if status == _STOPPED:
            return int(self._at[0])
        if status:
            raise RuntimeError(
                "a kernel failed in the middle of a step; this is an error of the program, which "
                "cannot go on with what it had computed"
            )
        return None


@kernel
def _stop():
    return np.int64(1)


STOP = Call(_stop, ())
"""Stops a program, for work that is Python's."""

_STOPPED = 1 << 32  # no status of a kernel, which are of 32 bits


@intrinsic
def _call(typingctx: Any, entry: Any, slots: Any) -> Any:
    """Calls a kernel's entry with the address of its slots; returns its status."""

    def codegen(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        kind = ir.FunctionType(I32, [I64])
        status = builder.call(builder.inttoptr(values[0], kind.as_pointer()), values[1:])
        return builder.sext(status, I64)

    return types.int64(types.int64, types.int64), codegen


@kernel
def _run(steps, at):
    for i in range(at[0], steps.shape[0]):
        status = _call(steps[i, 0], steps[i, 1])
        if status == 0:
            if load_i64(steps[i, 1]) == 0:  # its result, 0 where it has none
                continue
            status = _STOPPED
        at[0] = i
        return status
    return 0
