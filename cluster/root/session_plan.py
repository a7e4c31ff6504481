"""A cluster's configuration, the addresses its ranks know each other by, and the steps it is warmed
up with. No sockets."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from cluster.mesh.sync_type import SyncType
from cluster.security.settings import Security
from cluster.sockets import DEFAULT_PORT, Address, endpoint, is_loopback, session_ports
from dllama.engine.recovery import DEFAULT_REJOIN_S
from dllama.errors import ConfigError
from dllama.kv_type import KvType
from dllama.step import PAGE_TOKENS, Step

WARM_UP_TOKENS = 9  # rows of the first warm-up step: a tile and one more; 64 need no other kernel


@dataclass(frozen=True, slots=True)
class ClusterConfig:
    """The root's side of a cluster. Rank 0 is the root, rank i is workers[i - 1]."""

    workers: Sequence[Address]
    n_pages: int
    max_step_tokens: int
    threads: int  # the root's own
    shares: Sequence[float] = ()  # one per rank; empty: equal
    plans: bool = False  # nodes are measured, and shares and nodes chosen by that
    uses_all: bool = False  # a plan leaves no node out that the model can be cut for
    sync_type: SyncType = SyncType.EXACT
    kv_type: KvType = KvType.F16
    advertise: str | None = None  # how workers reach this machine; None: found out
    mesh_ports: Sequence[int] = field(default_factory=lambda: session_ports(DEFAULT_PORT))
    hello_timeout_s: float = 5.0
    hang_timeout_s: float = 4.0  # without a kernel call, while serving
    load_hang_timeout_s: float = 120.0  # without progress, while loading: one kernel's compilation
    rejoin_s: float = DEFAULT_REJOIN_S  # a lost worker is waited for, then it goes without it
    warm_up: bool = True
    security: Security = field(default_factory=Security)
    kv_dir: Path | None = None  # where rank 0 saves KV pages; workers know a place themselves

    @property
    def world_size(self) -> int:
        return len(self.workers) + 1

    def checked_shares(self) -> Sequence[float]:
        """One share per rank. Raises ConfigError."""
        shares = self.shares or [1.0] * self.world_size
        if len(shares) != self.world_size:
            raise ConfigError(
                f"--shares names {len(shares)} nodes and there are {self.world_size}: the root "
                f"and {len(self.workers)} workers, in this order"
            )
        return shares


def peer_endpoints(
    viewer: int,
    workers: Sequence[Address],
    mesh_ports: Mapping[int, int],
    root_host: str,
) -> list[str]:
    """Returns the endpoint of every rank's mesh inbox as rank `viewer` reaches it.

    `root_host` is this machine as the viewer sees it. A worker that the root knows by a loopback
    address runs on the root's machine, so others reach it there.
    """
    endpoints = [endpoint(root_host, mesh_ports[0])]
    is_local = viewer == 0 or is_loopback(workers[viewer - 1].host)
    for rank, worker in enumerate(workers, start=1):
        host = worker.host if is_local or not is_loopback(worker.host) else root_host
        endpoints.append(endpoint(host, mesh_ports[rank]))
    return endpoints


def warm_up_steps(max_step_tokens: int, n_pages: int, max_seq_len: int) -> Iterator[Step]:
    """Steps that make every node compile its kernels before a request needs them: a long one with
    a whole row of logits, and a short one with a candidate.

    What they leave in the first pages is overwritten before it is read.
    """
    longest = min(WARM_UP_TOKENS, max_step_tokens, n_pages * PAGE_TOKENS, max_seq_len)
    for n_tokens, candidates in ((longest, 0), (1, 1)):
        ids = np.arange(n_tokens, dtype=np.int32)
        yield Step(
            tokens=np.zeros_like(ids),
            positions=ids,
            starts=np.array([0, n_tokens], np.int32),
            pages=np.arange(-(-n_tokens // PAGE_TOKENS), dtype=np.int32)[None, :],
            logits_at=ids[-1:],
            candidates=np.array([candidates], np.int32),
        )
