"""The forward pass as in the paper, over the share of the model that a rank holds.

Knows no rank and no socket: array shapes give its numbers of heads and columns, and a Collective
adds the parts of all ranks.
"""

from __future__ import annotations

from dllama.collective import Collective
from dllama.runtime.executor import Executor
from dllama.runtime.ops import Ops
from dllama.runtime.weights import Weights


def forward(weights: Weights, ops: Ops, comm: Collective, executor: Executor) -> None:
    """Computes the logits of the step's wanted rows over this rank's part of the vocabulary, in
    state.logits.

    The residual stream holds the embedded tokens, and afterwards the last layer's states.
    Raises PeerLost.
    """
    family, mine, total = weights.family, ops.addend, ops.total
    for layer in weights.layers:
        executor.run(family.attention, ops, layer)  # my heads' part of the sum
        executor.all_reduce(comm, mine, total)
        executor.run(
            family.feed_forward, ops, layer
        )  # my hidden columns' part; begins with x += total
        executor.all_reduce(comm, mine, total)
    executor.run(ops.head)  # my slice of the vocabulary
