"""The vector code of gated delta nets: one row's step of some columns of a head's state."""

from __future__ import annotations

from functools import partial
from typing import Any

from llvmlite import ir

from kernels.emit.emitter import Emit, emitted_function
from kernels.emit.jit import intrinsic
from kernels.emit.later import types
from kernels.emit.vectors import I64, Value

LANES = 16
WIDTHS = (4, 1)  # vectors of columns that are computed at a time
IN_TURN = 2  # sums of a column, which hide the latency of an fma


def _emit_step(width: int, e: Emit, args: Any) -> None:
    """new = decay * old + k outer ((v - decay * (k . old)) * beta), then v = q . new: of `width`
    vectors of columns; old and new are (key_dim, row_bytes apart) matrices and may be the same."""
    old, new, row_bytes, key, query, value, key_dim, factors = args
    decay, beta = (e.load_splat_f32(e.at(factors, 4 * i)) for i in range(2))
    zero = e.b.fsub(decay, decay)
    turns = e.b.sdiv(key_dim, e.i64(IN_TURN))

    def sums() -> Any:
        return [[e.variable(zero) for _ in range(width)] for _ in range(IN_TURN)]

    def total(found: Any, i: int) -> Value:
        return e.b.fadd(found[0][i].get(), found[1][i].get())

    known = sums()
    with e.loop(turns) as turn:
        for u in range(IN_TURN):
            at = e.b.add(e.b.mul(turn, e.i64(IN_TURN)), e.i64(u))
            weight = e.load_splat_f32(e.b.add(key, e.b.mul(at, e.i64(4))))
            row = e.b.add(old, e.b.mul(at, row_bytes))
            for i in range(width):
                known[u][i].set(e.fma(e.load_f32(e.at(row, 64 * i)), weight, known[u][i].get()))
    added = []
    for i in range(width):
        difference = e.b.fsub(e.load_f32(e.at(value, 64 * i)), e.b.fmul(total(known, i), decay))
        added.append(e.variable(e.b.fmul(difference, beta)))
    found = sums()
    with e.loop(turns) as turn:
        for u in range(IN_TURN):
            at = e.b.add(e.b.mul(turn, e.i64(IN_TURN)), e.i64(u))
            offset = e.b.mul(at, e.i64(4))
            weight = e.load_splat_f32(e.b.add(key, offset))
            asked = e.load_splat_f32(e.b.add(query, offset))
            offset = e.b.mul(at, row_bytes)
            source, target = e.b.add(old, offset), e.b.add(new, offset)
            for i in range(width):
                kept = e.b.fmul(e.load_f32(e.at(source, 64 * i)), decay)
                number = e.fma(weight, added[i].get(), kept)
                e.store(number, e.at(target, 64 * i), 4)
                found[u][i].set(e.fma(number, asked, found[u][i].get()))
    for i in range(width):
        e.store(total(found, i), e.at(value, 64 * i), 4)


@intrinsic
def delta_step(typingctx: Any, width: Any, arguments: Any) -> Any:
    """delta_step(width, (old, new, row_bytes, key, query, value, key_dim, factors)): the step of
    `width` vectors of columns, one of WIDTHS. `factors` is the address of decay and beta; the
    value is replaced by the result. key_dim is a multiple of IN_TURN."""

    def codegen(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        args = [builder.extract_value(values[1], i) for i in range(8)]
        done = builder.append_basic_block("delta.done")
        switch = builder.switch(values[0], done)
        for n in WIDTHS:
            case = builder.append_basic_block(f"delta.{n}")
            switch.add_case(ir.Constant(I64, n), case)
            builder.position_at_end(case)
            function = emitted_function(
                builder.module, f"dllama.delta.{n}", 8, partial(_emit_step, n)
            )
            builder.call(function, args)
            builder.branch(done)
        builder.position_at_end(done)
        return context.get_dummy_value()

    return types.void(types.int64, types.UniTuple(types.int64, 8)), codegen
