"""The memory that all nodes of a router have free together."""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor

from dllama.cli.flags.settings import EngineSettings
from dllama.errors import DllamaError
from dllama.host.container import available_memory, machine_memory

log = logging.getLogger(__name__)

GREET_S = 5.0
MAX_THREADS = 16


def free_memory(settings: EngineSettings) -> int:
    """Returns the memory that this machine and the workers have free now. Workers that are away
    count nothing, which is told; containers of one machine count no more than it has. Raises
    ConfigError."""
    if not settings.workers:
        return available_memory()
    from cluster.machine import host_of, machine_id
    from cluster.root.scouts import greeter
    from cluster.security.settings import security_of
    from cluster.sockets import Address, parse_addresses
    from cluster.wire.messages import Welcome
    from dllama import __version__

    security = security_of(settings.cluster_key, encrypts=settings.encrypts)
    greet = greeter(__version__, security)
    by_machine = {machine_id(): available_memory()}
    by_host = {host_of(machine_id()): machine_memory()}

    def ask(address: Address) -> Welcome | None:
        try:
            return greet(address, GREET_S)
        except DllamaError as error:
            log.warning("the memory of %s is not counted: %s", address, error)
            return None

    addresses = parse_addresses(",".join(settings.workers))
    with ThreadPoolExecutor(min(MAX_THREADS, len(addresses))) as pool:
        for found in filter(None, pool.map(ask, addresses)):
            by_machine[found.machine] = found.memory_available
            by_host[host_of(found.machine)] = found.machine_available
    return sum(
        min(free, sum(n for machine, n in by_machine.items() if host_of(machine) == host))
        for host, free in by_host.items()
    )
