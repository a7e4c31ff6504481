"""The forward pass as in the paper, over the share of the model that a rank holds.

Knows no rank and no socket: array shapes give its numbers of heads and columns, and a Collective
adds the parts of all ranks.
"""

from __future__ import annotations

from dllama.collective import Collective, PendingSum
from dllama.runtime.executor import Executor
from dllama.runtime.ops import Ops
from dllama.runtime.weights import Weights


def forward(weights: Weights, ops: Ops, comm: Collective, executor: Executor) -> None:
    """Computes the logits of the step's wanted rows over this rank's part of the vocabulary, in
    state.logits.

    The residual stream holds the embedded tokens, and afterwards the last layer's states.
    Raises PeerLost.
    """
    groups = ops.groups(comm.n_groups(ops.rows.n))
    if len(groups) > 1:
        _compute_in_turn(weights, groups, comm)
        ops.join()
    else:
        _compute(weights, ops, comm, executor)
    executor.run(ops.head)  # my slice of the vocabulary


def _compute(weights: Weights, ops: Ops, comm: Collective, executor: Executor) -> None:
    family, mine, total = weights.family, ops.addend, ops.total
    for layer in weights.layers:
        for half_layer in (family.attention, family.feed_forward):
            executor.run(half_layer.enter, ops, layer)  # begins with x += total
            executor.run(half_layer.compute, ops, layer)  # my part of the sum
            executor.all_reduce(comm, mine, total)


def _compute_in_turn(weights: Weights, groups: list[Ops], comm: Collective) -> None:
    """Computes groups of rows in turn, while the sums of the others travel. A later group attends
    to an earlier one, whose keys and values of the layer are stored by then."""
    family = weights.family
    sums: list[PendingSum | None] = [None] * len(groups)
    before: PendingSum | None = None  # what was begun last
    for layer in weights.layers:
        for half_layer in (family.attention, family.feed_forward):
            for i, group in enumerate(groups):
                if (pending := sums[i]) is not None:
                    pending.finish()
                half_layer.enter(group, layer)
                half_layer.compute(group, layer)
                sums[i] = begun = comm.begin_all_reduce(group.addend, group.total)
                if before is not None:
                    before.advance()
                before = begun
    if before is not None:
        before.advance()
    for pending in sums:
        if pending is not None:
            pending.finish()
