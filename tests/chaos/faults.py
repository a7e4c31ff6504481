"""The faults: a row each, with what breaks, what mends it, and how often it is chosen."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal

import psutil

from benchmarks.lan.wire import LinkRule
from tests.chaos.cluster import Cluster

Undo = Callable[[], None]
Place = Literal["anywhere", "machines", "loopback"]
PATIENCE_S = 30.0


@dataclass(frozen=True, slots=True)
class Scene:
    """What a fault may touch, and the chance it is made of."""

    cluster: Cluster
    rng: random.Random

    def any_worker(self) -> int:
        """Returns the place of a worker in the list of workers."""
        return self.rng.randrange(len(self.cluster.workers))

    def is_disturbed(self) -> bool:
        """True where the root says that it does not serve right now."""
        return not self.cluster.is_ready()


@dataclass(frozen=True, slots=True)
class Fault:
    """One kind of fault. `hold_s`: how long it lasts, at least and at most, before it is undone;
    `weight`: how often it is chosen among the others."""

    name: str
    inject: Callable[[Scene], Undo]
    hold_s: tuple[float, float] = (0.0, 0.0)
    weight: int = 10
    place: Place = "anywhere"


def _nothing() -> None:
    """Mends nothing: the cluster does it by itself."""


def _send(pids: Iterable[int], sig: signal.Signals) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, sig)


# ---- processes
def kill_session(scene: Scene) -> Undo:
    _send(scene.cluster.sessions(scene.any_worker()), signal.SIGKILL)
    return _nothing


def kill_daemon(scene: Scene) -> Undo:
    worker = scene.cluster.workers[scene.any_worker()]
    worker.kill()
    return worker.start


def kill_engine(scene: Scene) -> Undo:
    engine = scene.cluster.engine()
    _send([engine] if engine is not None else [], signal.SIGKILL)
    return _nothing


def kill_two_at_once(scene: Scene) -> Undo:
    """A session and whatever else: another session, a daemon, or the engine."""
    others = [kill_session, kill_daemon, kill_engine]
    undo = scene.rng.choice(others)(scene)
    _send(scene.cluster.sessions(scene.any_worker()), signal.SIGKILL)
    return undo


def kill_all_sessions(scene: Scene) -> Undo:
    for number in range(len(scene.cluster.workers)):
        _send(scene.cluster.sessions(number), signal.SIGKILL)
    return _nothing


def kill_during_recovery(scene: Scene) -> Undo:
    """A session, and as soon as the root has noticed, the next one that is there."""
    kill_session(scene)
    until_s = time.monotonic() + 5.0
    while not scene.is_disturbed() and time.monotonic() < until_s:
        time.sleep(0.01)
    time.sleep(scene.rng.uniform(0.0, 1.0))
    return scene.rng.choice([kill_session, kill_daemon])(scene)


def freeze_session(scene: Scene) -> Undo:
    pids = scene.cluster.sessions(scene.any_worker())
    _send(pids, signal.SIGSTOP)
    return lambda: _send(pids, signal.SIGCONT)


def freeze_worker(scene: Scene) -> Undo:
    """Daemon and session: a machine that stands still."""
    worker = scene.cluster.workers[scene.any_worker()]
    worker.freeze()
    return worker.thaw


def slow_node(scene: Scene) -> Undo:
    """A session that runs for 10 of every 40 ms."""
    pids, is_over = scene.cluster.sessions(scene.any_worker()), threading.Event()

    def hold_back() -> None:
        while not is_over.is_set():
            _send(pids, signal.SIGSTOP)
            is_over.wait(0.03)
            _send(pids, signal.SIGCONT)
            is_over.wait(0.01)

    thread = threading.Thread(target=hold_back)
    thread.start()

    def mend() -> None:
        is_over.set()
        thread.join()
        _send(pids, signal.SIGCONT)

    return mend


def drain(scene: Scene) -> Undo:
    """SIGTERM to a worker, which is started again once it has left."""
    worker = scene.cluster.workers[scene.any_worker()]
    worker.send(signal.SIGTERM)

    def start_again() -> None:
        code = worker.wait(PATIENCE_S)
        assert code == 0, f"{worker.name} did not leave by itself at SIGTERM: {code}"
        worker.start()

    return start_again


def rolling_restart(scene: Scene) -> Undo:
    """Every worker in turn is drained and started again, each when the one before is back."""
    for worker in scene.cluster.workers:
        worker.send(signal.SIGTERM)
        code = worker.wait(PATIENCE_S)
        assert code == 0, f"{worker.name} did not leave by itself at SIGTERM: {code}"
        worker.start()
        scene.cluster.await_whole(PATIENCE_S)
    return _nothing


# ---- links
def _bad_links(rule: LinkRule) -> Callable[[Scene], Undo]:
    """Makes a worker's links bad, both ways."""

    def inject(scene: Scene) -> Undo:
        number = scene.any_worker()
        scene.cluster.set_link(number, rule, rule)
        return lambda: scene.cluster.set_link(number, LinkRule(), LinkRule())

    return inject


def half_open(scene: Scene) -> Undo:
    """A worker hears all and is heard by nobody, or the other way round."""
    number = scene.any_worker()
    ways = [LinkRule(is_cut=True), LinkRule()]
    scene.rng.shuffle(ways)
    scene.cluster.set_link(number, *ways)
    return lambda: scene.cluster.set_link(number, LinkRule(), LinkRule())


def reset_connections(scene: Scene) -> Undo:
    """All connections between root and daemon end, and new ones are taken."""
    scene.cluster.relays[scene.any_worker()].reset()
    return _nothing


def cut_between_two(scene: Scene) -> Undo:
    """The root reaches both workers, which do not reach each other."""
    network = scene.cluster.network
    assert network is not None, "a row that needs machines"

    def set_both(rule: LinkRule) -> None:
        network.set_way(1, 2, rule)
        network.set_way(2, 1, rule)

    set_both(LinkRule(is_cut=True))
    return lambda: set_both(LinkRule())


# ---- disks
def full_disk(scene: Scene) -> Undo:
    """The disk of a worker's weights is full, and its session dies, so that it would write."""
    number = scene.any_worker()
    filler = scene.cluster.cache_folder(number) / "filler"
    machine = scene.cluster.network.machines[number + 1] if scene.cluster.network else None
    assert machine is not None, "a row that needs machines"
    with suppress(Exception):  # it ends where the disk is full
        machine.run("dd", "if=/dev/zero", f"of={filler}", "bs=1M")
    _send(scene.cluster.sessions(number), signal.SIGKILL)
    return lambda: machine.run("rm", "-f", str(filler))


def read_only_disk(scene: Scene) -> Undo:
    number = scene.any_worker()
    machine = scene.cluster.network.machines[number + 1] if scene.cluster.network else None
    assert machine is not None, "a row that needs machines"
    folder = str(scene.cluster.cache_folder(number))
    machine.run("mount", "-o", "remount,ro", folder)
    _send(scene.cluster.sessions(number), signal.SIGKILL)
    return lambda: machine.run("mount", "-o", "remount,rw", folder)


def empty_cache(scene: Scene) -> Undo:
    """A worker loses its kept weights and its session."""
    number = scene.any_worker()
    machine = scene.cluster.network.machines[number + 1] if scene.cluster.network else None
    folder = scene.cluster.cache_folder(number)
    command = ["find", str(folder), "-mindepth", "1", "-delete"]
    if machine is not None:
        machine.run(*command)
    else:
        psutil.Popen(command).wait(PATIENCE_S)
    _send(scene.cluster.sessions(number), signal.SIGKILL)
    return _nothing


FAULTS = (
    Fault("kill -9 of a session", kill_session, weight=40),
    Fault("kill -9 of a daemon, back at once", kill_daemon, (0.0, 1.0), weight=20),
    Fault("kill -9 of a daemon, back after 4 to 6 s", kill_daemon, (4.0, 6.0), weight=8),
    Fault("kill -9 of the engine", kill_engine, weight=15),
    Fault("two processes killed at once", kill_two_at_once, (0.0, 0.5), weight=15),
    Fault("all sessions killed at once", kill_all_sessions, weight=10),
    Fault("kill during recovery", kill_during_recovery, (0.0, 0.5), weight=15),
    Fault("a session stands still for 6 s", freeze_session, (6.0, 6.0), weight=4),
    Fault("a machine stands still for 6 s", freeze_worker, (6.0, 6.0), weight=4),
    Fault("a machine stands still for 1 s", freeze_worker, (1.0, 1.0)),
    Fault("slow node", slow_node, (1.0, 2.0)),
    Fault("SIGTERM, started again", drain),
    Fault("rolling restart", rolling_restart, weight=2),
    Fault("weights lost from a disk", empty_cache, weight=6),
    Fault("full disk", full_disk, weight=6, place="machines"),
    Fault("read-only disk", read_only_disk, weight=6, place="machines"),
    Fault("link cut for 6 s", _bad_links(LinkRule(is_cut=True)), (6.0, 6.0), 4),
    Fault("link cut for 1 s", _bad_links(LinkRule(is_cut=True)), (1.0, 1.0)),
    Fault("half-open link for 6 s", half_open, (6.0, 6.0), 4),
    Fault("workers cut from each other for 6 s", cut_between_two, (6.0, 6.0), 4, "machines"),
    Fault("connections reset", reset_connections, place="loopback"),
    Fault("5 % of packets lost", _bad_links(LinkRule(loss=0.05)), (2.0, 3.0)),
    Fault("delay of 50 to 80 ms", _bad_links(LinkRule(delay_s=0.05, jitter_s=0.03)), (1.0, 2.0)),
    Fault("2 Mbit/s", _bad_links(LinkRule(bytes_per_s=250_000)), (1.0, 2.0)),
)


def possible_faults(*, has_machines: bool) -> tuple[Fault, ...]:
    """Returns the rows that a cluster can suffer."""
    here = "machines" if has_machines else "loopback"
    return tuple(row for row in FAULTS if row.place in ("anywhere", here))


def schedule(rows: tuple[Fault, ...], n: int, seed: int) -> list[tuple[Fault, int]]:
    """Returns n faults with a seed each, by their weights; each row is there where n allows it."""
    rng = random.Random(seed)
    chosen = list(rows)[:n]
    chosen += rng.choices(rows, [row.weight for row in rows], k=max(0, n - len(chosen)))
    rng.shuffle(chosen)
    return [(row, rng.randrange(1 << 30)) for row in chosen]
