"""The largest logits of a row and the log of its softmax's denominator."""

from __future__ import annotations

from typing import Any

from kernels.emit.emitter import Emit
from kernels.emit.exponential import emit_exp, exp_f32
from kernels.emit.intrinsics import address
from kernels.emit.jit import intrinsic, jitted, kernel, reordered
from kernels.emit.later import types
from kernels.emit.vectors import F32X16
from kernels.team import claim, region

LANES = F32X16.count

STRIDE = 64  # logits that are compared together: most strides hold no candidate


@reordered
def _largest(x):
    best = x[0]
    for i in range(1, x.size):
        best = max(best, x[i])
    return best


@intrinsic
def _sum_exp_of_vectors(typingctx: Any, x: Any, n_vectors: Any, top: Any) -> Any:
    """The sum of exp(x - top), float32, over n_vectors vectors of 16 floats from address x on,
    always added in the same order."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        e = Emit(builder)
        x, n_vectors, top = args
        level = e.splat(top)
        total = e.variable(e.constant(F32X16, 0.0))
        with e.loop(n_vectors) as i:
            v = e.load_f32(builder.add(x, builder.mul(i, e.i64(4 * LANES))))
            total.set(builder.fadd(total.get(), emit_exp(e, builder.fsub(v, level))))
        return e.fold_lanes(total.get(), builder.fadd)

    return types.float32(types.int64, types.int64, types.float32), codegen


@jitted
def _sum_exp(x, top):
    """Sum of exp(x - top); `top` is the largest."""
    n_vectors = x.size // LANES
    total = _sum_exp_of_vectors(address(x), n_vectors, top)
    for i in range(n_vectors * LANES, x.size):
        total += exp_f32(x[i] - top)
    return total


@jitted
def _is_worse(value_a, id_a, value_b, id_b):
    """True if a comes after b: smaller, or as large with a higher id."""
    return value_a < value_b or (value_a == value_b and id_a > id_b)


@jitted
def _sift_down(values, ids, start, end):
    """Restores the heap values[:end], whose root is the worst, from `start` down."""
    root = start
    while True:
        child = 2 * root + 1
        if child >= end:
            return
        if child + 1 < end and _is_worse(
            values[child + 1], ids[child + 1], values[child], ids[child]
        ):
            child += 1
        if not _is_worse(values[child], ids[child], values[root], ids[root]):
            return
        values[root], values[child] = values[child], values[root]
        ids[root], ids[child] = ids[child], ids[root]
        root = child


@jitted
def _select(x, first_id, ids, values):
    """ids, values (k,): the k largest of x (n >= k), best first, ties by lower id."""
    k = ids.size
    for i in range(k):
        ids[i], values[i] = first_id + i, x[i]
    for i in range(k // 2 - 1, -1, -1):
        _sift_down(values, ids, i, k)
    i = k
    while i < x.size:
        end = min(i + STRIDE, x.size)
        if _largest(x[i:end]) > values[0]:
            for j in range(i, end):
                if x[j] > values[0]:  # an equal one has a higher id: it is worse
                    ids[0], values[0] = first_id + j, x[j]
                    _sift_down(values, ids, 0, k)
        i = end
    for end in range(k - 1, 0, -1):
        values[0], values[end] = values[end], values[0]
        ids[0], ids[end] = ids[end], ids[0]
        _sift_down(values, ids, 0, end)


@region
def _scan_rows(thread, team, logits, n_vocab, first_id, unit, counts, ids, values, tops, sums):
    while True:
        row = claim(team, 1)
        if row >= counts.size:
            return
        x = logits[row, :n_vocab]
        if counts[row] > 0:
            k = min(counts[row], n_vocab)
            _select(x, first_id, ids[row, :k], values[row, :k])
        for i in range((n_vocab + unit - 1) // unit):
            part = x[i * unit : min(n_vocab, (i + 1) * unit)]
            top = _largest(part)
            tops[row, i] = top
            sums[row, i] = _sum_exp(part, top)


@kernel
def scan_logits(team, logits, n_vocab, first_id, unit, counts, ids, values, tops, sums):
    """For each row of logits (R, >= n_vocab) float32 and each `unit` of them: tops (R, units) the
    largest, sums (R, units) the sum of exp(logit - top). Where counts (R,) int32 is k > 0, also the
    row's k largest in ids (R, k) int32, counted from first_id, and values (R, k), best first, ties
    by lower id."""
    args = (team, logits, n_vocab, first_id, unit, counts, ids, values, tops, sums)
    _scan_rows(team, args)
