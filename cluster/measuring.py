"""Measures one rank: its kernels, and the links to the ranks above it. The same on every node."""

from __future__ import annotations

import time

import numpy as np
import psutil

from cluster.mesh.collective import MeshCollective
from cluster.mesh.links import MeshLinks
from cluster.mesh.probe import CACHE_BYTES, ROW_BYTES, WARM, probe_links
from cluster.sockets import address_towards
from cluster.wire.measure_messages import Measure, Measured
from dllama.errors import ClusterError
from dllama.runtime.graph import Replay, Sum

SHARED_MEMORY = "shared memory"
UNKNOWN = "unknown"
ROW_SUMS, ROW_SUMS_S = 200, 0.1  # at most, and for how long
LEAST_ROW_SUMS = 24
MOST_MEDIANS = 4  # a sum that took more was disturbed by what is no step's work


def measure_rank(
    asked: Measure, mesh: MeshCollective, n_threads: int, progress: np.ndarray | None
) -> Measured:
    """Returns the figures of this rank; every rank of the mesh calls it, so that ranks of one
    machine share its cores and its memory as in a step. Raises PeerLost, ProtocolError."""
    from dllama.runtime.kernel_speed import measure_kernels  # compiles: not before it is asked for

    speeds = measure_kernels(asked.types, n_threads, asked.max_bytes, progress)
    links = mesh.links
    found = probe_links(links, mesh.world_size, lambda rank: interface_to(links, rank))
    return Measured(speeds, found, row_sum_us(mesh) if mesh.world_size > 1 else 0.0)


def row_sum_us(mesh: MeshCollective) -> float:
    """Returns the mean time of a sum of one row over all ranks, with what a step does before it: in
    compiled code where steps are. A step takes the sum of many, those that have to wait for a late
    rank among them. Every rank of the mesh calls it."""
    one = Sum(np.ones((1, ROW_BYTES // 4), np.float32), np.zeros((1, ROW_BYTES // 4), np.float32))
    replay, caches = Replay([one], mesh), np.zeros(CACHE_BYTES // 8, np.int64)

    def seconds() -> float:
        caches.sum()
        began = time.perf_counter()
        replay.run()
        return time.perf_counter() - began

    times = [seconds() for _ in range(WARM + LEAST_ROW_SUMS)][WARM:]
    n_sums = _agreed(mesh, sum(times) / len(times))
    found = np.sort(times + [seconds() for _ in range(n_sums - len(times))])
    return float(np.minimum(found, MOST_MEDIANS * found[len(found) // 2]).mean() * 1e6)


def _agreed(mesh: MeshCollective, seconds: float) -> int:
    """Returns how many sums of so many seconds are measured: the same on every rank."""
    mine = np.full((1, ROW_BYTES // 4), seconds, np.float32)
    total = np.zeros_like(mine)
    mesh.all_reduce(mine, total)
    n_sums = ROW_SUMS_S * mesh.world_size / max(1e-9, float(total[0, 0]))
    return int(min(ROW_SUMS, max(LEAST_ROW_SUMS, n_sums)))


def interface_to(links: MeshLinks, rank: int) -> str:
    """Returns the name of the network interface that leads to a rank, or says that they share
    memory."""
    if links.shares_memory_with(rank):
        return SHARED_MEMORY
    host, _, port = links.peers[rank].removeprefix("tcp://").rpartition(":")
    try:
        own = address_towards(host.strip("[]"), int(port))
    except (ClusterError, ValueError):
        return UNKNOWN
    for name, addresses in psutil.net_if_addrs().items():
        if any(address.address.partition("%")[0] == own for address in addresses):
            return name
    return UNKNOWN
