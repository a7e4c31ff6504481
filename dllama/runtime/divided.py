"""Half layers of a long step: what concerns single rows is divided among the ranks, and groups of
rows take turns, so that those of one travel while another is computed.

After a half layer a rank adds up its share of the rows only, and norms and quantizes them; then all
ranks exchange the normed rows, which are a quarter as large as sums. (Compare the sequence
parallelism of Korthikanti et al., arXiv 2205.05198.)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from dllama.collective import Collective, Pending
from dllama.models.family import HalfLayer
from dllama.runtime.executor import Executor
from dllama.runtime.layer import After, Layer
from dllama.runtime.ops import Ops
from dllama.runtime.turns import take_turns

Turn = tuple[HalfLayer, Layer]


class _Group:
    """Rows on their way through the layers."""

    def __init__(
        self, ops: Ops, comm: Collective, executor: Executor, turns: Sequence[Turn], after: After
    ) -> None:
        self._ops, self._comm, self._executor, self._after = ops, comm, executor, after
        self._turns = iter(turns)
        self._sum: Pending | None = None
        self._gathered: Pending | None = None
        ops.divide(comm.shares(ops.rows.n))
        self._wanted = ops.rows.wanted
        self._states = np.empty((len(self._wanted), ops.x.shape[1]), np.float32)
        # of the wanted rows, after the last sum
        self.enter()

    def enter(self) -> None:
        """Norms this rank's share of the rows for the next half layer, or takes in the last sum."""
        ops, comm, executor = self._ops, self._comm, self._executor
        if self._sum is not None:
            self._sum.finish()
        self._turn = next(self._turns, None)
        if self._turn is not None:
            half_layer, layer = self._turn
            executor.run(half_layer.enter, ops, layer)
            executor.run(ops.pack_normed_rows)
            self._gathered = executor.begin_all_gather(comm, ops.sent_rows, ops.shares)
            return
        executor.run(ops.take_in, self._after)
        self._gathered = None
        if len(self._wanted):
            executor.act(self._read_states)
            shares = ops.shares.of(self._wanted)
            self._gathered = executor.begin_all_gather(comm, self._states, shares)

    def compute(self, between: Callable[[], None]) -> bool:
        """Computes the half layer that it has entered, with `between` between its two parts if it
        has two; returns whether there was one. After the last one it has the states of the wanted
        rows."""
        if self._gathered is not None:
            self._gathered.finish()
        ops, comm, executor = self._ops, self._comm, self._executor
        if self._turn is None:
            if len(self._wanted):
                executor.act(self._write_states)
            return False
        half_layer, layer = self._turn
        executor.run(ops.take_normed_rows)
        if half_layer.measure is not None:
            executor.run(half_layer.measure, ops, layer)
            norms = ops.joint_norms
            executor.all_reduce(comm, norms.measured, norms.total)
        if half_layer.begin is not None:
            executor.run(half_layer.begin, ops, layer)
            between()
        executor.run(half_layer.compute, ops, layer)
        self._sum = executor.begin_reduce_scatter(comm, ops.addend, ops.total, ops.shares)
        return True

    def _read_states(self) -> None:
        self._states[:] = self._ops.x[self._wanted]

    def _write_states(self) -> None:
        self._ops.x[self._wanted] = self._states


def compute_divided(
    turns: Sequence[Turn], after: After, groups: list[Ops], comm: Collective, executor: Executor
) -> None:
    """Computes half layers of the rows of a step. The residual stream of the wanted rows has then
    taken in the last sum, as `after` says. A later group attends to an earlier one, whose keys and
    values of the layer are stored by then. Raises PeerLost."""
    every = [_Group(ops, comm, executor, turns, after) for ops in groups]
    has_parts = any(half_layer.begin is not None for half_layer, _ in turns)
    take_turns(every, len(turns), has_parts=has_parts)
