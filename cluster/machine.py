"""The facts about a node that its Welcome message carries."""

from __future__ import annotations

import platform
import socket
import uuid
from functools import cache
from pathlib import Path

from cluster.wire.messages import Welcome
from dllama import __version__
from dllama.host.container import (
    available_memory,
    machine_memory,
    memory_group,
    total_memory,
)
from kernels.cpu import isa


@cache
def machine_id() -> str:
    """Returns an id that is equal for processes that share one memory, and different for different
    machines; containers with limits of their own are such."""
    boot = Path("/proc/sys/kernel/random/boot_id")
    if boot.exists():
        group = memory_group()
        return boot.read_text().strip() + ("" if group is None else f"/{group}")
    return f"{uuid.getnode():x}-{socket.gethostname()}"


def host_of(machine: str) -> str:
    """Returns what the ids of all containers of one machine have in common."""
    return machine.partition("/")[0]


@cache
def cpu_name() -> str:
    """Returns the model name of the processor."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text(errors="replace").splitlines():
            if line.startswith(("model name", "Model")):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def describe_machine(
    daemon: str, threads: int, release: str = __version__, nonce: str = ""
) -> Welcome:
    """Returns the Welcome message of a daemon on this node, as of now."""
    return Welcome(
        release,
        daemon,
        socket.gethostname(),
        machine_id(),
        cpu_name(),
        isa(),
        threads,
        total_memory(),
        available_memory(),
        machine_memory(),
        nonce,
    )
