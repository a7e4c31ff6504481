"""The forward pass as in the paper, over the share of the model that a rank holds.

Knows no rank and no socket: array shapes give its numbers of heads and columns, and a Collective
adds the parts of all ranks.
"""

from __future__ import annotations

from collections.abc import Sequence

from dllama.collective import Collective
from dllama.runtime.divided import Turn, compute_divided
from dllama.runtime.executor import FEW_ROWS, Executor
from dllama.runtime.ops import Ops
from dllama.runtime.weights import Weights


def forward(weights: Weights, ops: Ops, comm: Collective, executor: Executor) -> None:
    """Computes the logits of the step's wanted rows over this rank's part of the vocabulary, in
    state.logits.

    The residual stream holds the embedded tokens, and afterwards the last layer's states of the
    rows that are wanted (`Ops.states_at`). Raises PeerLost.
    """
    family, last_layer = weights.family, weights.layers[-1]
    turns = [(half_layer, layer) for layer in weights.layers for half_layer in family.halves]
    n_last = 0 if family.feed_forward is None else 1  # half layers without keys and values
    turns, last = turns[: len(turns) - n_last], turns[len(turns) - n_last :]
    if n_groups := executor.n_groups(ops.rows.n, comm):
        after = last_layer.after_attention if last else last_layer.after_feed_forward
        groups = ops.groups(executor.split(ops.rows, n_groups))
        compute_divided(turns, after, groups, comm, executor)
    else:
        _compute(turns, ops, comm, executor)
    if ops.rows.n > FEW_ROWS and len(ops.rows.wanted) < ops.rows.n:
        executor.run(ops.keep_wanted)  # no other row's keys and values are still to come
    if ops.rows.n:
        _compute(last, ops, comm, executor)
        executor.run(ops.take_in, last_layer.after_feed_forward)
        executor.run(ops.head)  # my slice of the vocabulary


def _compute(turns: Sequence[Turn], ops: Ops, comm: Collective, executor: Executor) -> None:
    for half_layer, layer in turns:
        executor.run(half_layer.enter, ops, layer)  # begins with x += total
        if half_layer.measure is not None:
            executor.run(half_layer.measure, ops, layer)
            norms = ops.joint_norms
            executor.all_reduce(comm, norms.measured, norms.total)
        if half_layer.begin is not None:
            executor.run(half_layer.begin, ops, layer)
        executor.run(half_layer.compute, ops, layer)  # my part of the sum
        executor.all_reduce(comm, ops.addend, ops.total)
