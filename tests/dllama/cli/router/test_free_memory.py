"""What all nodes have free together: containers of one machine no more than the machine."""

from __future__ import annotations

import pytest

import cluster.machine
import cluster.root.scouts
from cluster.sockets import Address
from cluster.wire.messages import Welcome
from dllama.cli.flags.settings import EngineSettings
from dllama.cli.router import free_memory as memory
from dllama.errors import ConfigError

GB = 1 << 30


def test_containers_of_a_machine_count_once_and_those_of_others_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    nodes = {  # machine, its own and the whole machine's memory
        "a": ("here/2", 6 * GB, 10 * GB),
        "b": ("there/1", 3 * GB, 20 * GB),
        "c": ("there/2", 4 * GB, 20 * GB),
        "d": ("third", 5 * GB, 5 * GB),
    }

    def greet(address: Address, within_s: float) -> Welcome:
        if address.host not in nodes:
            raise ConfigError("away")
        machine, own, whole = nodes[address.host]
        return Welcome("0", "d", "h", machine, "cpu", "isa", 1, 64 * GB, own, whole)

    monkeypatch.setattr(cluster.root.scouts, "greeter", lambda release, security: greet)
    monkeypatch.setattr(cluster.machine, "machine_id", lambda: "here/1")
    monkeypatch.setattr(memory, "available_memory", lambda: 7 * GB)
    monkeypatch.setattr(memory, "machine_memory", lambda: 10 * GB)
    settings = EngineSettings(model="m", threads=1, workers=("a", "b", "c", "d", "away"))
    assert memory.free_memory(settings) == (10 + 7 + 5) * GB
