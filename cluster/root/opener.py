"""Opens the sessions of a runner, one after the other, and keeps what outlives them: rank 0, and
the memory that comes free when one ends."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple

from cluster.machine import machine_id
from cluster.rank import Rank
from cluster.root.fitting import Choice, Fitting
from cluster.root.parts import RootParts
from cluster.root.session import ClusterSession
from cluster.root.session_plan import ClusterConfig
from dllama.host.descriptors import check_free
from dllama.runtime.meter import RankMeter
from dllama.sharding.plan import Shard
from kernels.matmul.sums import Kind

HELD_S = 5.0  # until the memory of an ended session counts as free by itself


class OwnRank(NamedTuple):
    """The root's rank, which outlives a session, and what it was made for."""

    rank: Rank
    shard: Shard
    n_pages: int
    kind: Kind  # of its sums


class SessionOpener:
    """Makes and opens sessions over `parts`; `own` is rank 0 of the last one."""

    def __init__(self, parts: RootParts, meter: RankMeter, fitting: Fitting) -> None:
        self._parts, self._meter, self._fitting = parts, meter, fitting
        self.own: OwnRank | None = None
        self._held: Mapping[str, int] = {}  # what the last session's ranks took of each machine
        self._held_until = float("-inf")

    def config_of(self, choice: Choice) -> ClusterConfig:
        return self._fitting.session_config(choice.candidates, choice.n_pages)

    def session(self, config: ClusterConfig) -> ClusterSession:
        """Returns a session that has not begun: `greet` comes next, then `open`."""
        return ClusterSession(replace(self._parts, config=config), self._meter)

    def open(self, session: ClusterSession, config: ClusterConfig) -> None:
        """Brings up the ranks of a session whose workers were greeted. Raises what
        ClusterSession.open does."""
        n_workers = len(config.workers)
        check_free(24 + 22 * n_workers, f"a cluster of {n_workers + 1} machines")
        self._free_other_rank(config, session.kind)
        try:
            session.open(None if self.own is None else self.own.rank)
        finally:
            if session.own_rank is not None:  # also where others were lost while they loaded
                shard = session.shards[0]
                self.own = OwnRank(session.own_rank, shard, config.n_pages, session.kind)
        self._meter.forget_steps()  # those of an earlier session: the other ranks begin anew too

    def _free_other_rank(self, config: ClusterConfig, kind: Kind) -> None:
        """Frees the root's rank where the next session needs another one: there may be no room for
        both."""
        own = self.own
        if own is None:
            return
        needed = (self._fitting.shards(config)[0], config.n_pages, kind)
        if (own.shard, own.n_pages, own.kind) != needed:
            self.own = None
            own.rank.close()

    def end(self, session: ClusterSession) -> None:
        """Ends a session; rank 0 stays."""
        if session.welcomes:
            earlier = self._held if time.monotonic() < self._held_until else {}
            now = session.held()
            self._held = {m: max(n, earlier.get(m, 0)) for m, n in now.items()}
            self._held_until = time.monotonic() + HELD_S
        session.close()

    def held(self, session: ClusterSession | None) -> dict[str, int]:
        """Returns the bytes of each machine that come free with the next session; `session` is the
        one that is alive."""
        if session is not None:
            held = session.held()
        else:
            held = dict(self._held) if time.monotonic() < self._held_until else {}
        if self.own is not None:
            n_bytes = self._fitting.needed(self.own.shard, self.own.n_pages)
            held[machine_id()] = held.get(machine_id(), 0) + n_bytes
        return held

    def close(self) -> None:
        if self.own is not None:
            self.own.rank.close()
            self.own = None
