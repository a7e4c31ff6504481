"""Measures one rank: its kernels, and the links to the ranks above it. The same on every node."""

from __future__ import annotations

import numpy as np
import psutil

from cluster.mesh.collective import MeshCollective
from cluster.mesh.links import MeshLinks
from cluster.mesh.probe import probe_links
from cluster.sockets import address_towards
from cluster.wire.measure_messages import Measure, Measured
from dllama.errors import ClusterError

SHARED_MEMORY = "shared memory"
UNKNOWN = "unknown"


def measure_rank(
    asked: Measure, mesh: MeshCollective, n_threads: int, progress: np.ndarray | None
) -> Measured:
    """Returns the figures of this rank; every rank of the mesh calls it, so that ranks of one
    machine share its cores and its memory as in a step. Raises PeerLost, ProtocolError."""
    from dllama.runtime.kernel_speed import measure_kernels  # compiles: not before it is asked for

    speeds = measure_kernels(asked.types, n_threads, asked.max_bytes, progress)
    links = mesh.links
    found = probe_links(links, mesh.world_size, lambda rank: interface_to(links, rank))
    return Measured(speeds, found)


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
