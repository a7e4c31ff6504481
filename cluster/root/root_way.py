"""How workers reach the root's rank: where it listens, the address that each of them is told, and
what to do where that leads nowhere."""

from __future__ import annotations

from cluster.root.session_plan import ClusterConfig
from cluster.sockets import Address, address_towards, is_loopback


def listen_host(config: ClusterConfig) -> str:
    """Returns the address to listen on: loopback where no other machine connects, unless workers
    come by both kinds of it, which no single address takes."""
    if config.advertise is None:
        own = {address_towards(w.host, w.port) for w in config.workers}
        if all(is_loopback(address) for address in own):
            if not any(":" in address for address in own):
                return "127.0.0.1"
            if len(own) == 1:
                return "::1"
    return "::" if any(":" in w.host for w in config.workers) else "0.0.0.0"


def root_host(config: ClusterConfig, worker: Address) -> str:
    """Returns the address of this machine that a worker is told. Raises ClusterError."""
    return config.advertise or address_towards(worker.host, worker.port)


def way_hint(config: ClusterConfig) -> str:
    """Returns where the address came from that workers are told, and what to do if it is wrong."""
    ports = f"{min(config.mesh_ports)} to {max(config.mesh_ports)}"
    if config.advertise is not None:
        return (
            "--advertise of the root gave that address; name one there by which workers reach it, "
            f"and let them through to its ports {ports}"
        )
    return (
        "It is the root's address on the way to the worker; let workers through to its ports "
        f"{ports}, or name another address of it with --advertise"
    )
