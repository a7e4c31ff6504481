"""Runs the pieces of a forward pass, and replays steps that are like others before as captured
graphs: choosing the kernels to call takes longer than many of the kernels of a short step do, and
in a long one that ranks share it is time in which nothing else is computed.

A piece of a step calls the same kernels with the same arrays as that of any other step with as many
rows, sequences and wanted logits; where groups of rows take turns, or only some rows are computed
to the end, sequences have to begin at the same rows too, and the same ones have to be wanted.
Capturing takes time, so it is done where several such steps have followed each other; later ones
are replayed: the whole step in one call where the collective has compiled sums, else with Python
between the calls of two half layers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from dllama.collective import Addend, Collective, Pending, RowShares
from dllama.config import ModelConfig
from dllama.runtime.graph import (
    Act,
    Finish,
    Gather,
    Graph,
    Key,
    Scatter,
    Stop,
    Sum,
    contents_of,
)
from dllama.runtime.ops import Ops
from dllama.runtime.rows import Rows, split
from kernels.program import recording

FEW_ROWS = 8  # of a step of which all rows are computed to the end
ALIKE_BEFORE = 2  # steps of one key before the next one is captured
MAX_GRAPHS = 32  # a graph of 80 layers has some 4 MB
NOTHING = Key(0, 0, 0, 0, b"")


class _Captured:
    """A collective that is under way in a step that is captured."""

    def __init__(self, pending: Pending, end: Callable[[], None]) -> None:
        self._pending, self._end = pending, end

    def finish(self) -> None:
        self._pending.finish()
        self._end()


class Executor:
    """The captured graphs of one rank. Steps come one after the other: `begin`, then `replay`;
    where that is not possible, the pieces of the forward pass and its collectives, and `end`."""

    def __init__(
        self, max_pages: int, config: ModelConfig, *, alike_before: int = ALIKE_BEFORE
    ) -> None:
        """`max_pages` are those of the longest sequence. A step is captured after `alike_before`
        others of its key."""
        self.alike_before, self._max_pages, self._config = alike_before, max_pages, config
        self._graphs: dict[Key, Graph] = {}  # the one that was used last is the last
        self._key = NOTHING
        self._n_alike = 0  # steps of that key so far
        self._captured: Graph | None = None
        self._n_begun = 0  # collectives of the step that go on for a while

    @property
    def n_graphs(self) -> int:
        """Keys of steps that have been captured."""
        return len(self._graphs)

    def n_groups(self, n_rows: int, comm: Collective) -> int:
        """Returns the groups that the rows of a step are computed in, 0 for all at once."""
        return comm.n_groups(n_rows, self._config.dim, least_rows(self._config))

    def begin(self, rows: Rows, comm: Collective) -> Rows:
        """Returns the rows of a step that begins; those of a step that is captured or replayed in
        arrays that stay where they are."""
        self._captured, self._n_begun = None, 0
        if rows.table.pages.shape[1] > self._max_pages:
            self._key = NOTHING
            return rows
        key = _key_of(rows, self.n_groups(rows.n, comm))
        self._n_alike = self._n_alike + 1 if key == self._key else 1
        self._key = key
        graph = self._graphs.get(key)
        if graph is None:
            if self._n_alike <= self.alike_before:
                return rows
            graph = self._captured = Graph(rows, key.n_groups, self._max_pages)
        graph.settle(rows)
        return graph.rows

    def replay(self, ops: Ops, comm: Collective) -> bool:
        """Computes the step if one of its key was captured; returns whether it did. Raises
        PeerLost."""
        graph = self._graphs.pop(self._key, None)
        if graph is None:
            return False
        self._graphs[self._key] = graph
        graph.run(comm)
        ops.kept = graph.kept
        return True

    def split(self, rows: Rows, n_groups: int) -> Sequence[tuple[int, Rows]]:
        """Returns the first row of each group of a step's rows, and the group."""
        return split(rows, n_groups) if self._captured is None else self._captured.groups

    def run(self, piece: Callable[..., None], *args: Any) -> None:
        """Computes the next piece of the step: `piece(*args)`."""
        if self._captured is None:
            piece(*args)
            return
        with recording() as calls:
            piece(*args)
        self._captured.trace += calls

    def act(self, work: Callable[[], None]) -> None:
        """Does what a step's end needs beside kernels: the same for every step of the key."""
        work()
        self._note(Act(work))

    def all_reduce(self, comm: Collective, mine: Addend, total: np.ndarray) -> None:
        """Adds up `mine` over all ranks, to `total`. Raises PeerLost."""
        comm.all_reduce(mine, total)
        self._note(Sum(mine, total))

    def begin_reduce_scatter(
        self, comm: Collective, mine: Addend, total: np.ndarray, shares: RowShares
    ) -> Pending:
        """Begins what Collective.begin_reduce_scatter does. Raises PeerLost."""
        pending = comm.begin_reduce_scatter(mine, total, shares)
        return self._begun(pending, Scatter(self._n_begun, mine, total, shares))

    def begin_all_gather(self, comm: Collective, rows: np.ndarray, shares: RowShares) -> Pending:
        """Begins what Collective.begin_all_gather does. Raises PeerLost."""
        pending = comm.begin_all_gather(rows, shares)
        return self._begun(pending, Gather(self._n_begun, rows, shares))

    def end(self, ops: Ops) -> None:
        """Keeps the captured graph after the last piece of the step."""
        if self._captured is None:
            return
        while len(self._graphs) >= MAX_GRAPHS:
            del self._graphs[next(iter(self._graphs))]
        self._captured.kept = ops.kept
        self._graphs[self._key] = self._captured

    def _begun(self, pending: Pending, stop: Scatter | Gather) -> Pending:
        if self._captured is None:
            return pending
        self._note(stop)
        self._n_begun += 1
        return _Captured(pending, lambda: self._note(Finish(stop.number)))

    def _note(self, stop: Stop) -> None:
        if self._captured is not None:
            self._captured.trace.append(stop)


def least_rows(config: ModelConfig) -> int:
    """Returns the rows that a group has at least: fewer read the weights again for too little.
    Rows of a mixture choose different experts."""
    return 32 if config.n_experts else 16


def _key_of(rows: Rows, n_groups: int) -> Key:
    n_sequences, n_logits = len(rows.starts) - 1, len(rows.logits_at)
    contents = b""
    if n_groups or (rows.n > FEW_ROWS and len(rows.wanted) < rows.n):
        contents = contents_of((rows.starts, rows.logits_at, rows.hidden_at))
    return Key(rows.n, n_sequences, n_logits, n_groups, contents)
