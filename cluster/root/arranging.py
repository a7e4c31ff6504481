"""Who of the nodes that answer computes, and how much of the model: as it was asked for, or as a
plan says. Measuring is somebody else's; this decides."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, Protocol

from cluster.machine import machine_id
from cluster.mesh.sync_type import SyncType
from cluster.planning.explain import verdict, why_left_out
from cluster.planning.measurements import Measurements, NodeFacts
from cluster.planning.predict import Predictor
from cluster.planning.search import Plan, Search, choose, with_everyone
from cluster.planning.work import ModelWork
from cluster.root.fitting import Candidate
from cluster.sockets import Address
from dllama.errors import ClusterError, ConfigError, PeerLost

log = logging.getLogger(__name__)

MEASURE_AGAIN_S = 60.0  # after a node was lost meanwhile
MOST_ARRANGED = 256  # arrangements that are remembered
STEPS_OF_MEMORY = 4  # from an amount of memory to twice as much

MeasureNodes = Callable[[Sequence[Address]], Measurements]
"""Measures the root and these workers, or knows them. Raises ConfigError, ClusterError."""

_Nodes = tuple[tuple[Address, ...], tuple[int, ...]]
"""Workers, and about how much memory the root and each of them have free."""


class Arranged(NamedTuple):
    """The workers to use, with their shares in relation to the root's, and why others are not."""

    candidates: Sequence[Candidate]
    left_out: Mapping[Address, str]


class Arranger(Protocol):
    """Decides between two sessions, and before one is changed."""

    def learn(self, workers: Sequence[Address]) -> None:
        """Finds out what is needed to arrange these workers. No session is alive meanwhile."""
        ...

    def arrange(self, candidates: Sequence[Candidate], free_bytes: Sequence[int]) -> Arranged:
        """Returns who of the candidates computes. `free_bytes` is the memory of the root, then of
        each."""
        ...

    def plan_of(self, workers: Sequence[Address]) -> Plan | None:
        """Returns the plan that uses just these workers; None where there is none."""
        ...


class GivenShares:
    """All candidates, with the shares that they were given."""

    def learn(self, workers: Sequence[Address]) -> None:
        """Does nothing: nothing is asked for."""

    def arrange(self, candidates: Sequence[Candidate], free_bytes: Sequence[int]) -> Arranged:
        return Arranged(candidates, {})

    def plan_of(self, workers: Sequence[Address]) -> Plan | None:
        """Returns None: nothing is planned."""
        return None


class PlannedShares:
    """The candidates that make a request faster, or that memory needs, with the best shares. Those
    that could not be measured keep the shares that they have."""

    def __init__(
        self, work: ModelWork, sync_type: SyncType, measure: MeasureNodes, *, uses_all: bool
    ) -> None:
        self._work, self._sync_type, self._measure = work, sync_type, measure
        self._uses_all = uses_all
        self._workers: list[Address] = []
        self._measured: Measurements | None = None
        self._failed: dict[frozenset[Address], float] = {}  # until when they are not tried again
        self._arranged: dict[_Nodes, Arranged] = {}
        self._plans: dict[frozenset[Address], Plan] = {}  # by the workers that are used

    def learn(self, workers: Sequence[Address]) -> None:
        is_known = self._measured is not None and set(workers) <= set(self._workers)
        if is_known or time.monotonic() < self._failed.get(frozenset(workers), 0.0):
            return
        try:
            self._measured = self._measure(workers)
        except (ClusterError, ConfigError) as error:
            # A loss may be a passing one; a node that cannot measure will not learn to.
            again_s = MEASURE_AGAIN_S if isinstance(error, PeerLost) else float("inf")
            self._failed[frozenset(workers)] = time.monotonic() + again_s
            log.warning("the nodes could not be measured, and keep the shares they have: %s", error)
            return
        self._workers = list(workers)
        self._arranged.clear()

    def arrange(self, candidates: Sequence[Candidate], free_bytes: Sequence[int]) -> Arranged:
        if self._measured is None or not {c.address for c in candidates} <= set(self._workers):
            return Arranged(candidates, {})
        # In one order, whoever came first: the search finds its way from what it begins with.
        order = sorted(
            range(len(candidates)), key=lambda i: self._workers.index(candidates[i].address)
        )
        ordered = [candidates[i] for i in order]
        free = [free_bytes[0], *(free_bytes[i + 1] for i in order)]
        key = _nodes(ordered, free)
        if key not in self._arranged:
            if len(self._arranged) >= MOST_ARRANGED:
                self._arranged.clear()
            self._arranged[key] = self._plan(self._measured, ordered, free)
        found = self._arranged[key]
        shares = {c.address: c.share for c in found.candidates}
        now = [c._replace(share=shares[c.address]) for c in candidates if c.address in shares]
        return Arranged(now, found.left_out)

    def plan_of(self, workers: Sequence[Address]) -> Plan | None:
        return self._plans.get(frozenset(workers))

    def _plan(
        self, measured: Measurements, candidates: Sequence[Candidate], free_bytes: Sequence[int]
    ) -> Arranged:
        some = measured.of([0, *(self._workers.index(c.address) + 1 for c in candidates)])
        names = ["the root", *(str(c.address) for c in candidates)]
        machines = [machine_id(), *(c.welcome.machine for c in candidates)]
        facts = [NodeFacts(*row) for row in zip(names, machines, free_bytes, strict=True)]
        nodes = some.nodes(facts)
        plans = Search(Predictor(self._work, nodes, some.network(), self._sync_type)).plans()
        chosen = (with_everyone if self._uses_all else choose)(plans)
        log.info("%s", verdict(self._work, plans, chosen, nodes, uses_all=self._uses_all))
        if chosen is None:  # perhaps with fewer KV pages: that is decided elsewhere
            return Arranged(candidates, {})
        used, left_out = [], {}
        for position, candidate in enumerate(candidates, start=1):
            if position in chosen.nodes:
                share = chosen.shares[chosen.nodes.index(position)] / chosen.shares[0]
                used.append(candidate._replace(share=share))
            else:
                reason = why_left_out(plans, chosen, position, nodes, uses_all=self._uses_all)
                left_out[candidate.address] = reason
        self._plans[frozenset(c.address for c in used)] = chosen
        return Arranged(used, left_out)


def _nodes(candidates: Sequence[Candidate], free_bytes: Sequence[int]) -> _Nodes:
    """Returns what a plan is made for. Memory counts in steps of a fifth: a node that has much more
    or much less of it than before may be used otherwise."""
    about = tuple(round(STEPS_OF_MEMORY * math.log2(max(1, n))) for n in free_bytes)
    return tuple(c.address for c in candidates), about
