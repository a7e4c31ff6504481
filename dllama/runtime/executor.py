"""Runs the pieces of a forward pass; for steps of few rows it replays them as captured graphs. Such
steps are short: choosing the kernels to call takes longer than many of the kernels do.

A piece of a step calls the same kernels with the same arrays as that of any other step with as many
rows, sequences and wanted logits. Capturing takes some 0.2 ms a kernel, so it is done where several
such steps have followed each other; later ones are replayed: the whole step in one call, the sums
over all ranks included where the collective has compiled ones.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from dllama.collective import Addend, Collective
from dllama.runtime.rows import PageTable, Rows
from dllama.step import MAX_LOGIT_ROWS
from kernels.program import STOP, Call, Program, recording
from kernels.recurrent.states import Slots

FEW_ROWS = 8  # of a step that is captured: with more, computing takes long enough
ALIKE_BEFORE = 3  # steps of one shape before the next one is captured

Shape = tuple[int, int, int]  # rows, sequences, rows of logits
_NEVER_CAPTURED: Shape = (0, 0, 0)


class Sum(NamedTuple):
    """The arguments of an all_reduce."""

    mine: Addend
    total: np.ndarray


class Replay:
    """A captured step as one program for the ranks of a collective."""

    def __init__(self, graph: list[Call | Sum], comm: Collective) -> None:
        self.comm = comm
        calls: list[Call] = []
        self._sums: dict[int, Sum] = {}  # by the numbers of their calls
        for each in graph:
            if isinstance(each, Sum):
                self._sums[len(calls)] = each
                each = comm.all_reduce_call(each.mine, each.total) or STOP
            calls.append(each)
        self._program = Program(calls)

    def run(self) -> None:
        """Computes the step. Raises PeerLost."""
        at = self._program.run()
        while at is not None:
            mine, total = self._sums[at]
            self.comm.all_reduce(mine, total)
            at = self._program.run(at + 1)


class Executor:
    """The captured graphs of one rank. Steps come one after the other: `begin`, then `replay`;
    where that is not possible, `run` and `all_reduce` for the pieces of the forward pass, and
    `end`."""

    def __init__(self, max_pages: int, *, alike_before: int = ALIKE_BEFORE) -> None:
        """`max_pages` are those of the longest sequence. A step is captured after `alike_before`
        others of its shape."""
        self.alike_before, self._max_pages = alike_before, max_pages
        self._starts = np.zeros(FEW_ROWS + 1, np.int32)
        self._positions = np.zeros(FEW_ROWS, np.int32)
        self._tables = [
            PageTable(np.zeros((FEW_ROWS, max_pages), np.int32), np.zeros(FEW_ROWS, np.int32))
            for _ in range(2)
        ]
        self._logits_at = np.zeros(MAX_LOGIT_ROWS, np.int32)
        self._sources, self._targets, self._copies = np.zeros((3, FEW_ROWS), np.int32)
        self._graphs: dict[Shape, list[Call | Sum]] = {}
        self._replays: dict[Shape, Replay] = {}
        self._shape = _NEVER_CAPTURED
        self._n_alike = 0  # steps of that shape so far
        self._captured: list[Call | Sum] | None = None

    @property
    def n_graphs(self) -> int:
        """Shapes of steps that have been captured."""
        return len(self._graphs)

    def begin(self, rows: Rows) -> Rows:
        """Returns the rows of a step that begins; those of a small step in arrays that stay where
        they are."""
        shape = (rows.n, len(rows.starts) - 1, len(rows.logits_at))
        self._n_alike = self._n_alike + 1 if shape == self._shape else 1
        self._shape, self._captured = shape, None
        if rows.n > FEW_ROWS or rows.table.pages.shape[1] > self._max_pages:
            self._shape = _NEVER_CAPTURED
            return rows
        if shape not in self._graphs and self._n_alike > self.alike_before:
            self._captured = []
        return self._settled(rows)

    def replay(self, comm: Collective) -> bool:
        """Computes the step if one of its shape was captured; returns whether it did. Raises
        PeerLost."""
        graph = self._graphs.get(self._shape)
        if graph is None:
            return False
        replay = self._replays.get(self._shape)
        if replay is None or replay.comm is not comm:
            replay = self._replays[self._shape] = Replay(graph, comm)
        replay.run()
        return True

    def run(self, piece: Callable[..., None], *args: Any) -> None:
        """Computes the next piece of the step: `piece(*args)`."""
        if self._captured is None:
            piece(*args)
            return
        with recording() as calls:
            piece(*args)
        self._captured += calls

    def all_reduce(self, comm: Collective, mine: Addend, total: np.ndarray) -> None:
        """Adds up `mine` over all ranks, to `total`. Raises PeerLost."""
        comm.all_reduce(mine, total)
        if self._captured is not None:
            self._captured.append(Sum(mine, total))

    def end(self) -> None:
        """Keeps the captured graph after the last piece of the step."""
        if self._captured is not None:
            self._graphs[self._shape] = self._captured

    def _settled(self, rows: Rows) -> Rows:
        n, n_sequences, n_wanted = self._shape
        table, window_table = (
            PageTable(t.pages[:n_sequences], t.row_pages[:n]) for t in self._tables
        )
        kept = Rows(
            n, self._starts[: n_sequences + 1], self._positions[:n], table, window_table,
            self._logits_at[:n_wanted], rows.hidden_at,
            Slots(self._sources[:n_sequences], self._targets[:n_sequences], self._copies[:n]),
        )  # fmt: skip
        kept.starts[:], kept.positions[:] = rows.starts, rows.positions
        kept.logits_at[:] = rows.logits_at
        for mine, its in ((kept.table, rows.table), (kept.window_table, rows.window_table)):
            mine.row_pages[:] = its.row_pages
            mine.pages[:, : its.pages.shape[1]] = its.pages
        for slots, its_slots in zip(kept.slots, rows.slots, strict=True):
            slots[:] = its_slots
        return kept
