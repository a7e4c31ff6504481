"""A persistent team of compute threads: one region costs well under a microsecond.

A region is open from the moment the caller publishes it until the caller finds no work left.
Helpers join while it is open; the caller waits only for those that joined, so that a helper that
the system has suspended on a busy machine delays nothing.

Helpers run inside one jitted function that never takes the GIL. They spin on an epoch counter,
and after a while sleep in the kernel (futex on Linux, short sleeps elsewhere). The functions that
`region` makes are called inside jitted code: threads then run the same body with the same
arguments.
"""

from __future__ import annotations

import ctypes
import platform
import sys
import threading
from typing import Any

import numpy as np
from llvmlite import ir

from kernels.arrays import aligned
from kernels.emit.intrinsics import (
    address,
    atomic_add,
    atomic_exchange,
    atomic_load,
    atomic_replace,
    atomic_store,
    pause,
)
from kernels.emit.jit import intrinsic, jitted, kernel, named
from kernels.emit.later import cgutils, types
from kernels.emit.system import sched_yield, syscall, usleep
from kernels.emit.vectors import I64

# Offsets in the team's shared memory, bytes; each on a cache line of its own.
EPOCH, JOB, ARRIVED, TICKET, PARKED, STOP, JOIN = 0, 64, 128, 192, 256, 320, 384
N_THREADS = JOB + 16  # beside the job's function and arguments: written once
SCRATCH = JOB + 24  # the address of the threads' scratch buffers: written once
STATE_WORDS = 56
SCRATCH_BYTES = 8 << 20  # of a thread; pages that are never touched cost no memory
CLOSED = (
    -1
)  # in JOIN; an open region's word is its epoch << 16, plus one for each thread that joined

SPINS_BEFORE_PARKING = 20_000  # about a millisecond: longer than the gaps inside a step
SPINS_BEFORE_YIELDING = 2_000
NAP_US = 50  # where there is no futex

_ON_LINUX = sys.platform.startswith("linux")
SYS_FUTEX = {"x86_64": 202, "aarch64": 98, "arm64": 98, "riscv64": 98}.get(platform.machine(), -1)
HAS_FUTEX = _ON_LINUX and SYS_FUTEX > 0
FUTEX_WAIT_PRIVATE, FUTEX_WAKE_PRIVATE = 128, 129


@intrinsic
def _run_job(typingctx: Any, function: Any, rank: Any, args: Any) -> Any:
    """Calls the function at an address with (thread index, address of the arguments)."""

    def codegen(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        kind = ir.FunctionType(ir.VoidType(), [I64, I64])
        builder.call(builder.inttoptr(values[0], kind.as_pointer()), values[1:])
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64), codegen


def _outline(context: Any, builder: Any, body: Any, arg_types: Any) -> Any:
    """Emits `void job(thread, args*)` that unpacks the arguments and calls the jitted body."""
    signature = types.void(types.int64, *arg_types)
    compiled = body.get_compile_result(signature)
    context.add_linking_libs([compiled.library])
    packed = ir.LiteralStructType([context.get_value_type(t) for t in arg_types])
    name = builder.module.get_unique_name(f"job.{body.py_func.__name__}")
    job = ir.Function(builder.module, ir.FunctionType(ir.VoidType(), [I64, I64]), name)
    job.linkage = "internal"
    inner = ir.IRBuilder(job.append_basic_block("entry"))
    unpacked = inner.load(inner.inttoptr(job.args[1], packed.as_pointer()))
    callee = context.declare_function(builder.module, compiled.fndesc)
    values = [inner.extract_value(unpacked, i) for i in range(len(arg_types))]
    # Bodies raise nothing: the status is dropped, as no caller could receive it.
    context.call_conv.call_function(
        inner, callee, types.void, signature.args, [job.args[0], *values]
    )
    inner.ret_void()
    return job, packed


def _publisher(body: Any) -> Any:
    """An intrinsic that writes the addresses of the outlined body and of its arguments to a slot
    and returns both. The body is closed over, not passed: a function passed as a value would
    be an address, which numba cannot keep in its cache."""

    @intrinsic
    def publish(typingctx: Any, slot: Any, args: Any) -> Any:
        arg_types = tuple(args)
        body.compile(types.void(types.int64, *arg_types).args)

        def codegen(context: Any, builder: Any, signature: Any, values: Any) -> Any:
            job, packed = _outline(context, builder, body, arg_types)
            with builder.goto_entry_block():
                space = builder.alloca(packed)
            for i in range(len(arg_types)):
                item = builder.extract_value(values[1], i)
                builder.store(item, cgutils.gep_inbounds(builder, space, 0, i))
            job_address = builder.ptrtoint(job, I64)
            args_address = builder.ptrtoint(space, I64)
            where = builder.inttoptr(values[0], I64.as_pointer())
            builder.store(job_address, where)
            builder.store(args_address, builder.gep(where, [ir.Constant(I64, 1)]))
            return cgutils.pack_array(builder, [job_address, args_address])

        return types.UniTuple(types.int64, 2)(types.int64, args), codegen

    return publish


def region(body: Any) -> Any:
    """Makes `run(team, args)` of a function body(thread, *args), for use inside jitted code.

    The team's threads run the body with the same arguments; `run` returns when all are done.
    `team` is Team.state. The body claims its work with `claim` (a thread may come late or not at
    all, so an even split by thread index would leave work undone) and raises nothing. A body that
    is made inside another function has to be `named`.
    """
    publish = _publisher(jitted(body))

    @jitted
    @named(f"run_{body.__module__.rpartition('.')[2]}_{body.__name__}")
    def run(team, args):
        base = address(team)
        job, packed = publish(base + JOB, args)
        n_threads = team[N_THREADS // 8]
        atomic_store(base + TICKET, 0)
        if n_threads == 1:
            team[EPOCH // 8] += 1
            _run_job(job, 0, packed)
            return
        atomic_store(base + ARRIVED, 0)
        epoch = atomic_load(base + EPOCH) + 1
        atomic_store(base + JOIN, epoch << 16)
        atomic_store(base + EPOCH, epoch)
        if HAS_FUTEX and atomic_load(base + PARKED) > 0:
            syscall(SYS_FUTEX, base + EPOCH, FUTEX_WAKE_PRIVATE, 1 << 30, 0, 0)
        _run_job(job, 0, packed)
        joined = atomic_exchange(base + JOIN, CLOSED) & 0xFFFF
        spins = 0
        while atomic_load(base + ARRIVED) < joined:
            pause()
            spins += 1
            if spins > SPINS_BEFORE_YIELDING:
                sched_yield()

    return run


@jitted
def claim(team, chunk):
    """Claims the next `chunk` items of work for the calling thread; returns the index of the
    first."""
    return atomic_add(address(team) + TICKET, chunk)


@jitted
def scratch_of(team, thread):
    """The address of SCRATCH_BYTES that belong to a thread while it is in a region."""
    return team[SCRATCH // 8] + thread * SCRATCH_BYTES


@kernel
def _help(team, thread):
    base = address(team)
    seen = 0
    while True:
        spins = 0
        while atomic_load(base + EPOCH) == seen:
            pause()
            spins += 1
            if spins > SPINS_BEFORE_PARKING:
                if HAS_FUTEX:
                    atomic_add(base + PARKED, 1)
                    # Sleeps only while the counter's low word is still what was seen.
                    syscall(SYS_FUTEX, base + EPOCH, FUTEX_WAIT_PRIVATE, seen & 0xFFFFFFFF, 0, 0)
                    atomic_add(base + PARKED, -1)
                else:
                    usleep(np.uint32(NAP_US))
        seen = atomic_load(base + EPOCH)
        if atomic_load(base + STOP) != 0:
            return
        word = atomic_load(base + JOIN)
        while word != CLOSED and word >> 16 == seen:
            if atomic_replace(base + JOIN, word, word + 1):
                _run_job(team[JOB // 8], thread, team[JOB // 8 + 1])
                atomic_add(base + ARRIVED, 1)
                break
            word = atomic_load(base + JOIN)


@kernel
def _stop(team):
    base = address(team)
    atomic_store(base + STOP, 1)
    atomic_add(base + EPOCH, 1)
    if HAS_FUTEX:
        syscall(SYS_FUTEX, base + EPOCH, FUTEX_WAKE_PRIVATE, 1 << 30, 0, 0)


class Team:
    """A team of `n_threads` threads, the calling one among them. Use as a context, or close it.

    `state` is the argument of kernels; its first word, `progress`, grows with every region, so that
    a monitor in another process can tell a working rank from a hung one.
    """

    def __init__(self, n_threads: int, memory: np.ndarray | None = None) -> None:
        if n_threads < 1:
            raise ValueError(f"a team needs at least one thread, not {n_threads}")
        self.state = aligned(STATE_WORDS, np.int64) if memory is None else memory
        self.state[:] = 0
        self.state[N_THREADS // 8] = n_threads
        self._scratch = aligned((n_threads, SCRATCH_BYTES), np.uint8)
        self.state[SCRATCH // 8] = self._scratch.ctypes.data
        self.n_threads = n_threads
        _help.prepare(self.state, 1)  # here, so that a thread has nothing left to load
        self._helpers = [
            threading.Thread(target=_help, args=(self.state, i), name=f"compute-{i}", daemon=True)
            for i in range(1, n_threads)
        ]
        for helper in self._helpers:
            helper.start()

    @property
    def progress(self) -> int:
        return int(self.state[EPOCH // 8])

    def close(self) -> None:
        """Ends the helper threads; the team cannot be used afterwards."""
        if self._helpers:
            _stop(self.state)
            for helper in self._helpers:
                helper.join()
            self._helpers = []

    def __enter__(self) -> Team:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


assert ctypes.sizeof(ctypes.c_void_p) == 8, "dllama needs a 64-bit system"
