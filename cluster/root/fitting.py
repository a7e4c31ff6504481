"""Chooses among the nodes that answer those that have the memory for their parts of the model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from cluster.machine import host_of, machine_id
from cluster.root.session_plan import ClusterConfig
from cluster.sockets import Address
from cluster.wire.messages import Welcome
from dllama.errors import ConfigError, ShardError
from dllama.host.container import machine_memory
from dllama.sharding.memory import NodeMemory, check_fits, memory_needed, short_of_memory
from dllama.sharding.plan import Shard, plan_for
from dllama.step import PAGE_TOKENS
from dllama.weight_source import WeightSource

PAGES_LEFT = 7, 8  # the part of the KV pages that is tried next where memory is short


class Candidate(NamedTuple):
    """A worker that answers, and its share of the model in relation to the others'."""

    address: Address
    share: float
    welcome: Welcome


class Misfit(NamedTuple):
    """Why a model does not fit some nodes. `node` is the position of the candidate that is too
    small; None where leaving one out cannot help."""

    node: int | None
    reason: str


@dataclass(frozen=True, slots=True)
class Choice:
    """The nodes of the next session, its KV pages, and why others are left out. The nodes `awaited`
    may come back, and then it is another choice."""

    candidates: Sequence[Candidate]
    n_pages: int
    left_out: Mapping[Address, str]
    awaited: Sequence[Address] = ()


FindMisfit = Callable[[Sequence[Candidate], int], Misfit | None]
"""Returns why a model with so many KV pages does not fit the root and these workers; None where it
does."""


def choose(
    candidates: Sequence[Candidate], n_pages: int, least_pages: int, misfit: FindMisfit
) -> Choice:
    """Returns the largest choice that fits: rather with fewer nodes than with fewer KV pages.

    Raises ConfigError, with figures, where nothing fits, not even the root alone.
    """
    first: str | None = None
    for pages in _fewer_and_fewer(n_pages, least_pages):
        chosen, left_out = list(candidates), {}
        while (bad := misfit(chosen, pages)) is not None:
            first = first or bad.reason
            if bad.node is None:
                break
            left_out[chosen.pop(bad.node).address] = bad.reason
        else:
            return Choice(chosen, pages, left_out)
    raise ConfigError(first or "there is no room for a single conversation (--kv-tokens)")


def _fewer_and_fewer(n_pages: int, least: int) -> Iterator[int]:
    yield n_pages
    while n_pages > least:
        n_pages = max(least, n_pages * PAGES_LEFT[0] // PAGES_LEFT[1])
        yield n_pages


def free_bytes(
    candidates: Sequence[Candidate], root_bytes: int, held: Mapping[str, int]
) -> list[int]:
    """Returns the memory that each machine has for the next session, the root's first; see
    Fitting.misfit."""
    available = [root_bytes, *(c.welcome.memory_available for c in candidates)]
    return _with_held(candidates, available, held, lambda machine: machine)


def host_bytes(candidates: Sequence[Candidate], held: Mapping[str, int]) -> list[int]:
    """Returns the same of the machine that each node is on, with all of its containers."""
    available = [machine_memory(), *(c.welcome.machine_available for c in candidates)]
    return _with_held(candidates, available, held, host_of)


def _with_held(
    candidates: Sequence[Candidate],
    available: Sequence[int],
    held: Mapping[str, int],
    place_of: Callable[[str], str],
) -> list[int]:
    """Returns `available` (the root's first) with what is held in the same place."""
    coming: Counter[str] = Counter()
    for machine, n_bytes in held.items():
        coming[place_of(machine)] += n_bytes
    root, *others = (
        free + coming[place_of(machine)]
        for machine, free in zip(_machines(candidates), available, strict=True)
    )
    most = [c.welcome.memory_total for c in candidates]
    return [root, *map(min, most, others)]


def _machines(candidates: Sequence[Candidate]) -> list[str]:
    return [machine_id(), *(c.welcome.machine for c in candidates)]


class Fitting:
    """The memory that one model takes of a root and its workers."""

    def __init__(self, source: WeightSource, config: ClusterConfig) -> None:
        self._source, self._config = source, config
        self.root_share = config.checked_shares()[0]
        self.least_pages = min(config.n_pages, -(-source.config.max_seq_len // PAGE_TOKENS))

    def session_config(self, candidates: Sequence[Candidate], n_pages: int) -> ClusterConfig:
        """Returns the configuration of a session over these workers."""
        return replace(
            self._config,
            workers=[c.address for c in candidates],
            shares=[self.root_share, *(c.share for c in candidates)],
            n_pages=n_pages,
        )

    def shards(self, config: ClusterConfig) -> list[Shard]:
        """Returns the plan of a session. Raises ShardError."""
        return plan_for(self._source.config, self._source.tensors, config.checked_shares())

    def needed(self, shard: Shard, n_pages: int) -> int:
        """Returns the bytes that a rank needs."""
        return memory_needed(
            self._source.config,
            self._source.tensors,
            shard,
            n_pages=n_pages,
            max_step_tokens=self._config.max_step_tokens,
            kv_type=self._config.kv_type,
        )

    def misfit(
        self,
        candidates: Sequence[Candidate],
        n_pages: int,
        root_bytes: int,
        held: Mapping[str, int],
    ) -> Misfit | None:
        """Returns why these workers do not do. `root_bytes` is the memory that is left to the root;
        `held` is what the session before this one takes of each machine, which comes free."""
        try:
            shards = self.shards(self.session_config(candidates, n_pages))
        except ShardError as error:
            return Misfit(len(candidates) - 1 if candidates else None, str(error))
        needed = [self.needed(shard, n_pages) for shard in shards]
        labels = ["the root", *(f"worker {c.address}" for c in candidates)]
        machines = _machines(candidates)
        free = free_bytes(candidates, root_bytes, held)
        nodes = [NodeMemory(*row) for row in zip(labels, machines, needed, free, strict=True)]
        # Containers of one machine have room each, and may not have it together.
        hosts = [host_of(machine) for machine in machines]
        whole = host_bytes(candidates, held)
        together = [NodeMemory(*row) for row in zip(labels, hosts, needed, whole, strict=True)]
        for rows in (nodes, together):
            try:
                check_fits(rows)
            except ConfigError as error:
                short = [i for i in short_of_memory(rows) if i > 0]
                return Misfit(short[-1] - 1 if short else None, str(error))
        return None
