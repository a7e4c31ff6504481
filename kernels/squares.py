"""The sum of a row, or of its squares, added in the same order on every processor."""

from __future__ import annotations

from typing import Any

from kernels.emit.emitter import Emit
from kernels.emit.intrinsics import address, fma
from kernels.emit.jit import intrinsic, jitted
from kernels.emit.later import types
from kernels.emit.vectors import F32X16

SIDE_BY_SIDE = 4  # vectors of sums, which hide the latency of an fma
TURN = SIDE_BY_SIDE * F32X16.count


def _emit_turns(builder: Any, args: Any, *, is_squared: bool) -> Any:
    """Emits the sum of the floats, or of their squares, of whole turns: args are the address of the
    first and the number of turns."""
    e = Emit(builder)
    x, n_turns = args
    totals = [e.variable(e.constant(F32X16, 0.0)) for _ in range(SIDE_BY_SIDE)]
    with e.loop(n_turns) as turn:
        at = builder.add(x, builder.mul(turn, e.i64(4 * TURN)))
        for i, total in enumerate(totals):
            v, so_far = e.load_f32(e.at(at, 64 * i)), total.get()
            total.set(e.fma(v, v, so_far) if is_squared else builder.fadd(v, so_far))
    first, second, third, fourth = (total.get() for total in totals)
    both = builder.fadd(builder.fadd(first, second), builder.fadd(third, fourth))
    return e.fold_lanes(both, builder.fadd)


@intrinsic
def _sum_of_turns(typingctx: Any, x: Any, n_turns: Any) -> Any:
    """The sum of n_turns * TURN floats from address x on, float32."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return _emit_turns(builder, args, is_squared=False)

    return types.float32(types.int64, types.int64), codegen


@intrinsic
def _squares_of_turns(typingctx: Any, x: Any, n_turns: Any) -> Any:
    """The sum of the squares of n_turns * TURN floats from address x on, float32."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return _emit_turns(builder, args, is_squared=True)

    return types.float32(types.int64, types.int64), codegen


@jitted
def sum_of(x):
    """The sum of x (n,) float32, whose items lie side by side."""
    n_turns = x.size // TURN
    total = _sum_of_turns(address(x), n_turns)
    for i in range(n_turns * TURN, x.size):
        total += x[i]
    return total


@jitted
def sum_of_squares(x):
    """The sum of the squares of x (n,) float32, whose items lie side by side."""
    n_turns = x.size // TURN
    total = _squares_of_turns(address(x), n_turns)
    for i in range(n_turns * TURN, x.size):
        total = fma(x[i], x[i], total)
    return total
