"""The forward pass as in the paper, over the share of the model that a rank holds.

Knows no rank and no socket: array shapes give its numbers of heads and columns, and a Collective
adds the parts of all ranks.
"""

from __future__ import annotations

from dllama.collective import Collective
from dllama.runtime.divided import compute_divided
from dllama.runtime.executor import Executor
from dllama.runtime.ops import Ops
from dllama.runtime.weights import Weights


def forward(weights: Weights, ops: Ops, comm: Collective, executor: Executor) -> None:
    """Computes the logits of the step's wanted rows over this rank's part of the vocabulary, in
    state.logits.

    The residual stream holds the embedded tokens, and afterwards the last layer's states of the
    rows that are wanted. Raises PeerLost.
    """
    n_groups = comm.n_groups(ops.rows.n)
    if n_groups:
        compute_divided(weights, ops.groups(n_groups), comm)
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
    executor.run(ops.end_layers)
