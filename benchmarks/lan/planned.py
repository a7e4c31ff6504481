"""The set-ups whose speed is predicted and then measured, and what comes of them. The nodes of a
set-up are machines of a Lan, each with cores of its own and perhaps less than all of their time."""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.compare import Peer
from benchmarks.lan.cpu_quota import CpuQuota
from benchmarks.lan.set_ups import PORTS, Link, Programs, background_command
from benchmarks.lan.site import SETTLE_S, START_S
from benchmarks.names import parse_test
from benchmarks.namespaces import Lan, await_listening, lan_of
from benchmarks.restart import Node

SPARE_S = 2 * SETTLE_S  # with a part of a core's time a daemon takes longer for another process


@dataclass(frozen=True, slots=True)
class PlannedSetUp:
    """Nodes with some cores each. `quota` is the part of their time that the last node gets, and
    shares are planned where it is less than all; else they are equal."""

    name: str
    cores: tuple[int, ...]
    link: Link | None = None
    quota: float = 1.0


SET_UPS = {
    set_up.name: set_up
    for set_up in (
        PlannedSetUp("one-core", (1,)),
        PlannedSetUp("two-cores", (2,)),
        PlannedSetUp("gigabit", (1, 1), Link(1000)),
        PlannedSetUp("100-mbit", (1, 1), Link(100)),
        PlannedSetUp("unequal", (1, 1), Link(1000), 0.5),
    )
}


def in_words(set_up: PlannedSetUp) -> str:
    """Returns what a set-up is."""
    n = len(set_up.cores)
    if set_up.link is None:
        return f"one node, {set_up.cores[0]} core{'s' if set_up.cores[0] > 1 else ''}"
    whole = f"{n} nodes of {set_up.cores[0]} core, {set_up.link.name}"
    return whole if set_up.quota == 1.0 else f"{whole}, the last with {set_up.quota:g} of its time"


def measure(
    set_up: PlannedSetUp, model: Path, tests: Sequence[str], rounds: int, folder: Path,
    tell: Callable[[str], None],
) -> list[dict[str, Any]]:  # fmt: skip
    """Returns a row for each test. In every round the nodes are measured anew, which predicts, and
    then each test runs once."""
    samples: dict[str, list[dict[str, Any]]] = {test: [] for test in tests}
    pages = max(parse_test(test).n_pages for test in tests) + 1
    with _opened(set_up, model, pages, folder) as peer:
        for number in range(rounds):
            if number:
                peer.measure("plan")
            if len(set_up.cores) > 1:
                time.sleep(SPARE_S)
            for test in tests:
                found = peer.measure(test)
                samples[test].append(found)
                predicted, measured = found["predicted_per_s"], found["tokens_per_s"]
                tell(f"{in_words(set_up)}, round {number + 1}, {test}: predicted {predicted:.2f}, "
                     f"measured {measured:.2f} tokens/s")  # fmt: skip
    return [row_of(set_up, model.stem, test, found) for test, found in samples.items()]


def row_of(
    set_up: PlannedSetUp, model: str, test: str, samples: Sequence[dict[str, Any]]
) -> dict[str, Any]:
    """Returns medians over the rounds, and `error`: how much faster the prediction is than what was
    measured, of the median of their ratios."""
    names = ("predicted_per_s", "tokens_per_s", "predicted_compute_ms", "predicted_network_ms",
             "compute_ms", "wait_ms", "network_ms")  # fmt: skip
    ratios = [s["predicted_per_s"] / s["tokens_per_s"] for s in samples]
    return {
        "set_up": in_words(set_up), "model": model, "test": test, "shares": samples[-1]["shares"],
        **{name: statistics.median(s[name] for s in samples) for name in names},
        "ratios": ratios, "error": statistics.median(ratios) - 1.0,
    }  # fmt: skip


@contextmanager
def _opened(set_up: PlannedSetUp, model: Path, pages: int, folder: Path) -> Iterator[Peer]:
    """Yields the process on the first node that predicts and measures, with the model loaded."""
    cores = _cores_of(set_up.cores)
    link = set_up.link or Link(1000)
    with ExitStack() as stack:
        lan = stack.enter_context(lan_of(len(cores), link.rate_mbit, link.delay_ms))
        workers = [
            _worker(lan, i, cores[i], folder, set_up.quota if i + 1 == len(cores) else 1.0, stack)
            for i in range(1, len(cores))
        ]
        words = [sys.executable, "-m", "benchmarks.peers.with_plan", str(model)]
        words += [str(len(cores[0])), *workers, *(["--plans"] if set_up.quota < 1.0 else [])]
        home = f"DLLAMA_HOME={_home(folder, 0)}"
        command = lan.command(0, ["env", home, *words], cores[0])
        yield stack.enter_context(closing(Peer(set_up.name, command, pages)))


def _worker(
    lan: Lan, i: int, cores: Sequence[int], folder: Path, quota: float, stack: ExitStack
) -> str:
    """Starts a worker on machine `i` and returns its address once it listens."""
    address, home = lan.address(i), _home(folder, i)
    command = background_command("encrypted", len(cores), address, home, Programs())
    node = Node(lan.command(i, command, cores), home, "worker.log")
    stack.callback(node.end)
    if quota < 1.0:
        group = CpuQuota(quota * len(cores))
        stack.enter_context(group)
        group.hold(node.process.pid)
    await_listening(node.process.pid, PORTS["encrypted"], START_S + SETTLE_S)
    return f"{address}:{PORTS['encrypted']}"


def _home(folder: Path, i: int) -> Path:
    home = folder / f"machine-{i}"
    home.mkdir(exist_ok=True)
    return home


def _cores_of(counts: Sequence[int]) -> list[list[int]]:
    """Returns the cores of each node. Raises SystemExit where this machine has too few."""
    from benchmarks.network import node_cores

    return node_cores(len(counts), max(counts))
