"""The vector code of gated delta nets: a row's step of some columns of a head's state.

A row asks the state twice: what it knows of the row's key, before the row is written, and for the
row's query afterwards. The first of the next row is computed while a row is written, so that a
state passes the registers once for each row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from kernels.emit.emitter import Emit, call_one_of, emitted_function
from kernels.emit.jit import intrinsic
from kernels.emit.later import types
from kernels.emit.vectors import F32X16, Value

LANES = 16
WIDTHS = (4, 1)  # vectors of columns that are computed at a time
IN_TURN = 2  # sums of a column, which hide the latency of an fma
N_ARGS = 10


class _Sums:
    """Sums over the keys of `width` vectors of columns: IN_TURN partial ones of each."""

    def __init__(self, e: Emit, width: int) -> None:
        self._e, self._width = e, width
        zero = e.constant(F32X16, 0.0)
        self._parts = [[e.variable(zero) for _ in range(width)] for _ in range(IN_TURN)]

    def add(self, turn: int, numbers: list[Value], weight: Value) -> None:
        for part, number in zip(self._parts[turn], numbers, strict=True):
            part.set(self._e.fma(number, weight, part.get()))

    def store(self, where: Value) -> None:
        for i in range(self._width):
            first, second = (part[i].get() for part in self._parts)
            self._e.store(self._e.b.fadd(first, second), self._e.at(where, 64 * i), 4)


def _each_key(e: Emit, key_dim: Value) -> Iterator[tuple[int, Value]]:
    """Emits a loop over the keys; yields which partial sum a key belongs to, and its number."""
    with e.loop(e.b.sdiv(key_dim, e.i64(IN_TURN))) as turn:
        first = e.b.mul(turn, e.i64(IN_TURN))
        for u in range(IN_TURN):
            yield u, e.b.add(first, e.i64(u))


def _weight(e: Emit, vector: Value, number: Value) -> Value:
    """A number of a key or a query, for all lanes."""
    return e.load_splat_f32(e.b.add(vector, e.b.mul(number, e.i64(4))))


def _vectors(e: Emit, width: int, where: Value) -> list[Value]:
    return [e.load_f32(e.at(where, 64 * i)) for i in range(width)]


def _emit_recall(width: int, e: Emit, args: Any) -> None:
    """known = key . old, of `width` vectors of columns."""
    old, _, row_bytes, key, _, _, _, key_dim, _, known = args
    sums = _Sums(e, width)
    for turn, number in _each_key(e, key_dim):
        row = e.b.add(old, e.b.mul(number, row_bytes))
        sums.add(turn, _vectors(e, width, row), _weight(e, key, number))
    sums.store(known)


def _emit_step(width: int, e: Emit, args: Any, *, has_next: bool) -> None:
    """new = decay * old + key outer ((value - decay * known) * beta), then value = query . new, and
    where a row follows, known = its key . new."""
    old, new, row_bytes, key, query, value, next_key, key_dim, factors, known = args
    decay, beta = (e.load_splat_f32(e.at(factors, 4 * i)) for i in range(2))
    added = []
    for now, before in zip(_vectors(e, width, value), _vectors(e, width, known), strict=True):
        difference = e.b.fsub(now, e.b.fmul(before, decay))
        added.append(e.variable(e.b.fmul(difference, beta)))
    found, recalled = _Sums(e, width), _Sums(e, width)
    for turn, number in _each_key(e, key_dim):
        offset, weight = e.b.mul(number, row_bytes), _weight(e, key, number)
        target, written = e.b.add(new, offset), []
        for i, before in enumerate(_vectors(e, width, e.b.add(old, offset))):
            written.append(e.fma(weight, added[i].get(), e.b.fmul(before, decay)))
            e.store(written[i], e.at(target, 64 * i), 4)
        found.add(turn, written, _weight(e, query, number))
        if has_next:
            recalled.add(turn, written, _weight(e, next_key, number))
    found.store(value)
    if has_next:
        recalled.store(known)


_FUNCTIONS: dict[str, Callable[[int, Emit, Any], None]] = {
    "recall": _emit_recall,
    "last": partial(_emit_step, has_next=False),
    "step": partial(_emit_step, has_next=True),
}


def _by_width(name: str) -> Any:
    """An intrinsic f(width, <N_ARGS int64>) of one of the functions, for a width of WIDTHS."""

    @intrinsic
    def call(typingctx: Any, width: Any, arguments: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, values: Any) -> Any:
            args = [builder.extract_value(values[1], i) for i in range(N_ARGS)]
            functions = [
                (n, emitted_function(
                    builder.module, f"dllama.delta.{name}.{n}", N_ARGS, partial(_FUNCTIONS[name], n)
                ))
                for n in WIDTHS
            ]  # fmt: skip
            call_one_of(builder, values[0], functions, args)
            return context.get_dummy_value()

        return types.void(types.int64, types.UniTuple(types.int64, N_ARGS)), codegen

    return call


# Of (old, new, row_bytes, key, query, value, next_key, key_dim, factors, known), which are
# addresses but for row_bytes and key_dim: old and new are matrices of key_dim rows, row_bytes
# apart, and may be the same, `factors` are decay and beta, and the value is replaced by the result.
# key_dim is a multiple of IN_TURN.
recall = _by_width("recall")
delta_step = _by_width("step")
last_delta_step = _by_width("last")
