"""The vector code of the online softmax: weights of scores, and the fold of two chunks' states."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir

from kernels.attention.kv_pages import LANES
from kernels.attention.vectors import QUERIES, ROW
from kernels.emit.emitter import Emit
from kernels.emit.exponential import emit_exp
from kernels.emit.jit import intrinsic
from kernels.emit.later import types
from kernels.emit.vectors import F32, F32X16, I32, I32X16, Value

LOWEST_SCORE = -3.0e38  # below every score, and finite: differences stay numbers


def _softmax_step(
    e: Emit, scores: Value, is_known: Callable[[Value], Value], state: list[Value]
) -> None:
    """One step over ROW scores of one query, of which those lanes count that `is_known` says.
    Always whole spans: the number of lanes without a score must not change the order of
    additions."""
    top, total, decay = state
    lowest, zero = e.constant(F32X16, LOWEST_SCORE), e.constant(F32X16, 0.0)
    counts, known = [], []
    for i in range(ROW // LANES):
        lanes = ir.Constant(I32X16, list(range(i * LANES, (i + 1) * LANES)))
        counts.append(is_known(lanes))
        found = e.load(F32X16, e.at(scores, 64 * i), 64)
        known.append(e.b.select(counts[i], found, lowest))
    so_far = e.load(F32, top, 4)
    best = e.larger(so_far, e.fold_lanes(_tree(known, e.larger), e.larger))
    level = e.splat(best)
    worth = emit_exp(e, e.b.fsub(e.splat(so_far), level))
    worth = e.b.extract_element(worth, ir.Constant(I32, 0))
    weights = [
        e.b.select(it_counts, emit_exp(e, e.b.fsub(score, level)), zero)
        for it_counts, score in zip(counts, known, strict=True)
    ]
    for i, weight in enumerate(weights):
        e.store(weight, e.at(scores, 64 * i), 64)
    added = e.fold_lanes(_tree(weights, e.b.fadd), e.b.fadd)
    e.store(e.fma(e.load(F32, total, 4), worth, added), total, 4)
    e.store(best, top, 4)
    e.store(worth, decay, 4)


def _tree(values: list[Value], join: Any) -> Value:
    """Joins neighbours first, which keeps chains of operations short."""
    while len(values) > 1:
        values = [join(a, b) for a, b in zip(values[::2], values[1::2], strict=True)]
    return values[0]


@intrinsic
def online_softmax(typingctx: Any, arguments: Any) -> Any:
    """online_softmax((scores, n_valid, top, total, decay)): one step of the online softmax over ROW
    scores of one query, of which the first n_valid are valid. They become weights in place; `top`,
    the largest score so far, and `total`, the weights' sum, are updated; `decay` becomes the factor
    of earlier weights. All but n_valid are addresses."""

    def codegen(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        e = Emit(builder)
        scores, n_valid, *state = (builder.extract_value(values[0], i) for i in range(5))
        end = e.splat(builder.trunc(n_valid, I32))
        _softmax_step(e, scores, lambda lanes: builder.icmp_signed("<", lanes, end), state)
        return context.get_dummy_value()

    return types.void(types.UniTuple(types.int64, 5)), codegen


@intrinsic
def windowed_softmax(typingctx: Any, arguments: Any) -> Any:
    """windowed_softmax((scores, n_valid, top, total, decay, n_hidden)): the same where the first
    n_hidden scores are not valid."""

    def codegen(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        e = Emit(builder)
        scores, n_valid, *state, n_hidden = (builder.extract_value(values[0], i) for i in range(6))
        begin, end = (e.splat(builder.trunc(n, I32)) for n in (n_hidden, n_valid))

        def is_known(lanes: Value) -> Value:
            is_early = builder.icmp_signed("<", lanes, end)
            return builder.and_(is_early, builder.icmp_signed(">=", lanes, begin))

        _softmax_step(e, scores, is_known, state)
        return context.get_dummy_value()

    return types.void(types.UniTuple(types.int64, 6)), codegen


@intrinsic
def fold_sums(typingctx: Any, arguments: Any) -> Any:
    """fold_sums((whole, part, decays, gains, n, width)): whole = whole * decay + part * gain for
    two states' sums and totals of n queries, the product with the gain rounded first."""

    def codegen(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        e = Emit(builder)
        whole, part, decays, gains, n, width = (
            builder.extract_value(values[0], i) for i in range(6)
        )

        def add(offset: Value, decay: Value, gain: Value) -> None:
            where = builder.add(whole, offset)
            addend = builder.fmul(e.load_f32(builder.add(part, offset)), gain)
            e.store(e.fma(e.load_f32(where), decay, addend), where, 4)

        with e.loop(n) as q:
            at = builder.mul(q, e.i64(4))
            decay = e.load_splat_f32(builder.add(decays, at))
            gain = e.load_splat_f32(builder.add(gains, at))
            row = builder.mul(builder.mul(q, width), e.i64(4))
            with e.loop(builder.sdiv(width, e.i64(LANES))) as i:
                add(builder.add(row, builder.mul(i, e.i64(4 * LANES))), decay, gain)
        totals = e.at(builder.mul(width, e.i64(4 * QUERIES)), 4 * LANES)
        add(totals, e.load_f32(decays), e.load_f32(gains))
        return context.get_dummy_value()

    return types.void(types.UniTuple(types.int64, 6)), codegen
