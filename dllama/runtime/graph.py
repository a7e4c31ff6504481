"""A captured step: its kernel calls in their order, with the collectives between them, and arrays
of its own that tell its rows. Steps of the same key are computed by these calls alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import numpy as np

from dllama.collective import Addend, Collective, Pending, RowShares
from dllama.runtime.rows import PageTable, Rows, split
from kernels.program import STOP, Call, Program
from kernels.recurrent.states import Slots


class Key(NamedTuple):
    """What steps have in common that call the same kernels with the same arrays."""

    n_rows: int
    n_sequences: int
    n_logits: int
    n_groups: int  # that the rows are computed in; 0: all at once
    contents: bytes  # of all that tells which rows are whose and wanted, where calls depend on it


class Stop(Protocol):
    """What Python does between two kernel calls."""

    def do(self, replay: Replay) -> None: ...


class Sum(NamedTuple):
    """An all_reduce."""

    mine: Addend
    total: np.ndarray

    def do(self, replay: Replay) -> None:
        replay.comm.all_reduce(self.mine, self.total)


class Scatter(NamedTuple):
    """The beginning of a reduce-scatter, the `number`th collective that goes on for a while."""

    number: int
    mine: Addend
    total: np.ndarray
    shares: RowShares

    def do(self, replay: Replay) -> None:
        begin = replay.comm.begin_reduce_scatter
        replay.pending[self.number] = begin(self.mine, self.total, self.shares)


class Gather(NamedTuple):
    """The beginning of an all-gather, likewise."""

    number: int
    rows: np.ndarray
    shares: RowShares

    def do(self, replay: Replay) -> None:
        replay.pending[self.number] = replay.comm.begin_all_gather(self.rows, self.shares)


class Finish(NamedTuple):
    """The end of such a collective."""

    number: int

    def do(self, replay: Replay) -> None:
        replay.pending.pop(self.number).finish()


class Act(NamedTuple):
    """Something else."""

    work: Callable[[], None]

    def do(self, replay: Replay) -> None:
        self.work()


Trace = list[Call | Stop]


class Replay:
    """A trace as one program for the ranks of a collective."""

    def __init__(self, trace: Trace, comm: Collective) -> None:
        self.comm, self.pending = comm, dict[int, Pending]()
        calls: list[Call] = []
        self._stops: dict[int, Stop] = {}  # by the numbers of their calls
        for each in trace:
            if not isinstance(each, Call):
                self._stops[len(calls)] = each
                call = None
                if isinstance(each, Sum):
                    call = comm.all_reduce_call(each.mine, each.total)
                each = call or STOP
            calls.append(each)
        self._program = Program(calls)

    def run(self) -> None:
        """Computes the step. Raises PeerLost."""
        self.pending.clear()  # of a step that a lost peer has ended
        at = self._program.run()
        while at is not None:
            self._stops[at].do(self)
            at = self._program.run(at + 1)


class Graph:
    """A captured step and the arrays that its calls find its rows in; `settle` and then `run`
    compute another one."""

    def __init__(self, rows: Rows, n_groups: int, max_pages: int) -> None:
        """`max_pages` are those of the longest sequence."""
        self.rows = _copy(rows, max_pages)
        self.groups = split(self.rows, n_groups) if n_groups else []
        self.trace: Trace = []
        self.kept: np.ndarray | None = None  # the rows of the step that are left at its end
        self._replay: Replay | None = None

    def settle(self, rows: Rows) -> None:
        """Takes in what is another step's own: positions, pages and slots."""
        mine = self.rows
        mine.starts[:], mine.positions[:] = rows.starts, rows.positions
        mine.logits_at[:] = rows.logits_at
        for kept, its in ((mine.table, rows.table), (mine.window_table, rows.window_table)):
            kept.row_pages[:] = its.row_pages
            kept.pages[:, : its.pages.shape[1]] = its.pages
        _copy_slots(mine.slots, rows.slots)
        if self.groups:  # all else of theirs is a part of the step's
            for (_, group), (_, its_group) in zip(
                self.groups, split(mine, len(self.groups)), strict=True
            ):
                _copy_slots(group.slots, its_group.slots)

    def run(self, comm: Collective) -> None:
        """Computes the step that it has taken in. Raises PeerLost."""
        if self._replay is None or self._replay.comm is not comm:
            self._replay = Replay(self.trace, comm)
        self._replay.run()


def _copy_slots(mine: Slots, its: Slots) -> None:
    for kept, other in zip(mine, its, strict=True):
        kept[:] = other


def _copy(rows: Rows, max_pages: int) -> Rows:
    """Returns rows of the same shape in arrays of their own."""

    def table(its: PageTable) -> PageTable:
        pages = np.zeros((len(its.pages), max_pages), np.int32)
        pages[:, : its.pages.shape[1]] = its.pages
        return PageTable(pages, its.row_pages.copy())

    return Rows(
        rows.n, rows.starts.copy(), rows.positions.copy(), table(rows.table),
        table(rows.window_table), rows.logits_at.copy(), rows.hidden_at,
        Slots(*(each.copy() for each in rows.slots)),
    )  # fmt: skip


def contents_of(arrays: Sequence[np.ndarray]) -> bytes:
    """Returns what some arrays hold, told apart from what any others do."""
    return b"".join(len(a).to_bytes(4, "little") + a.tobytes() for a in arrays)
