"""Who of the nodes that answer computes, and how much of the model: as it was asked for, or as a
plan says. Measuring is somebody else's; this decides."""

from __future__ import annotations

import logging
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
from dllama.errors import ClusterError, ConfigError

log = logging.getLogger(__name__)

MeasureNodes = Callable[[Sequence[Address]], Measurements]
"""Measures the root and these workers, or knows them. Raises ConfigError, ClusterError."""


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
    that could not be measured get equal ones."""

    def __init__(
        self, work: ModelWork, sync_type: SyncType, measure: MeasureNodes, *, uses_all: bool
    ) -> None:
        self._work, self._sync_type, self._measure = work, sync_type, measure
        self._uses_all = uses_all
        self._workers: list[Address] = []
        self._measured: Measurements | None = None
        self._failed: set[frozenset[Address]] = set()
        self._arranged: dict[tuple[Address, ...], Arranged] = {}
        self._plans: dict[tuple[Address, ...], Plan] = {}  # by the workers that are used

    def learn(self, workers: Sequence[Address]) -> None:
        is_known = self._measured is not None and set(workers) <= set(self._workers)
        if is_known or frozenset(workers) in self._failed:
            return
        try:
            self._measured = self._measure(workers)
        except (ClusterError, ConfigError) as error:
            self._failed.add(frozenset(workers))
            log.warning("the nodes could not be measured, and get equal shares: %s", error)
            return
        self._workers = list(workers)
        self._arranged.clear()

    def arrange(self, candidates: Sequence[Candidate], free_bytes: Sequence[int]) -> Arranged:
        addresses = tuple(c.address for c in candidates)
        if self._measured is None or not set(addresses) <= set(self._workers):
            return Arranged(candidates, {})
        if addresses not in self._arranged:
            self._arranged[addresses] = self._plan(self._measured, candidates, free_bytes)
        found = self._arranged[addresses]
        now = {c.address: c for c in candidates}  # their Welcomes are newer
        return Arranged([now[c.address]._replace(share=c.share) for c in found.candidates],
                        found.left_out)  # fmt: skip

    def plan_of(self, workers: Sequence[Address]) -> Plan | None:
        return self._plans.get(tuple(workers))

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
        self._plans[tuple(c.address for c in used)] = chosen
        return Arranged(used, left_out)
