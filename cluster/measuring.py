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
from dllama.runtime.executor import Replay, Sum

SHARED_MEMORY = "shared memory"
UNKNOWN = "unknown"
ROW_SUMS = 24


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
    """Returns the median time of a sum of one row over all ranks, with what a step does before it:
    in compiled code where steps are. Every rank of the mesh calls it."""
    one = Sum(np.ones((1, ROW_BYTES // 4), np.float32), np.zeros((1, ROW_BYTES // 4), np.float32))
    replay, caches = Replay([one], mesh), np.zeros(CACHE_BYTES // 8, np.int64)
    times = []
    for _ in range(ROW_SUMS):
        caches.sum()
        began = time.perf_counter()
        replay.run()
        times.append(time.perf_counter() - began)
    return sorted(times[WARM:])[len(times[WARM:]) // 2] * 1e6


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
