"""Faults one after another under load, and how long each is felt."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from tests.chaos.cluster import Cluster
from tests.chaos.faults import Fault, Scene
from tests.chaos.load import Finding, Load

LOOK_S = 0.02
SERVE_S = 150.0  # more than the root tries to recover
CALM_S = 0.4  # it has to serve for so long before the next fault
SLOWEST_S = 3.0  # some streams hear nothing for long, while a grammar or a long prompt is computed
WHOLE_S = 180.0  # a node that was lost again and again is taken back after two minutes
PATIENCE_S = 4.0
KILLS = "kill -9"  # how the names of faults begin that are always felt


class Watch:
    """Asks /health all the time, in a thread of its own; used as a context."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._changes: list[tuple[float, bool]] = [(time.monotonic(), True)]
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch")

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._thread.join()

    @property
    def is_ready(self) -> bool:
        return self._changes[-1][1]

    def noticed_after(self, moment_s: float) -> float | None:
        """Returns when the root first said after a moment that it does not serve."""
        return next((at_s for at_s, ready in self._changes if at_s > moment_s and not ready), None)

    def ready_after(self, moment_s: float) -> float:
        """Returns when the root first said after a moment that it serves."""
        return next((at_s for at_s, ready in self._changes if at_s > moment_s and ready), moment_s)

    def _run(self) -> None:
        while not self._is_over.wait(LOOK_S):
            ready = self._cluster.is_ready()
            if ready != self._changes[-1][1]:
                self._changes.append((time.monotonic(), ready))


@dataclass(slots=True)
class Outcome:
    """What became of one fault. Times are seconds since it began, None where it was not felt."""

    fault: Fault
    seed: int
    notice_s: float | None = None
    serve_s: float | None = None
    lasted_s: float = 0.0
    carried_bytes: int | None = None  # of all packets; known on machines of namespaces only
    weights_mb: int = 0
    findings: list[Finding] = field(default_factory=list)


class Trial:
    """Hurts one cluster, which is under load."""

    def __init__(self, cluster: Cluster, load: Load, watch: Watch) -> None:
        self._cluster, self._load, self._watch = cluster, load, watch

    def suffer(self, fault: Fault, seed: int) -> Outcome:
        """Injects a fault, undoes it, and waits until answers flow again."""
        outcome = Outcome(fault, seed)
        scene = Scene(self._cluster, random.Random(seed))
        n_found = len(self._load.findings)
        began_s = time.monotonic()
        with self._counted_bytes(outcome):
            try:
                undo = fault.inject(scene)
                time.sleep(scene.rng.uniform(*fault.hold_s))
                undo()
            except AssertionError as error:
                self._report(fault.name, str(error))
            if fault.name.startswith(KILLS):
                self._await_notice(began_s)
            self._await_calm(fault)
        outcome.lasted_s = time.monotonic() - began_s
        noticed_s = self._watch.noticed_after(began_s)
        if noticed_s is not None:
            outcome.notice_s = noticed_s - began_s
            served_s = self._load.first_piece_after(self._watch.ready_after(noticed_s))
            outcome.serve_s = served_s - began_s if served_s is not None else None
        outcome.findings = self._load.findings[n_found:]
        return outcome

    def await_whole(self) -> None:
        """Waits until every node computes again."""
        try:
            self._cluster.await_whole(WHOLE_S)
        except AssertionError as error:
            self._report("the cluster", str(error))

    def is_worth_hurting(self, seed: int) -> bool:
        """Waits a moment for nodes that are away; True where there is one to be hurt, and for half
        of the seeds only where all are there. Nodes that were lost often stay away for longer."""
        deadline_s = time.monotonic() + PATIENCE_S
        n_enough = self._cluster.settings.n_workers + 1 if seed % 2 else 2
        while self._cluster.world_size() < n_enough:
            if time.monotonic() > deadline_s:
                return False
            time.sleep(0.1)
        return True

    def _await_notice(self, began_s: float) -> None:
        """Waits until the root has said that it does not serve, a few seconds at most: sessions
        outlive their daemon for a moment, in which answers go on."""
        deadline_s = time.monotonic() + PATIENCE_S
        while self._watch.noticed_after(began_s) is None and time.monotonic() < deadline_s:
            time.sleep(LOOK_S)

    def _await_calm(self, fault: Fault) -> None:
        """Waits until the root serves and every stream goes on; a few seconds for the slowest."""
        deadline_s = time.monotonic() + SERVE_S
        ready_from_s = time.monotonic()
        while time.monotonic() < deadline_s and not self._cluster.root.has_ended():
            time.sleep(LOOK_S)
            if not self._watch.is_ready:
                ready_from_s = time.monotonic()
            elif time.monotonic() > ready_from_s + CALM_S and (
                self._load.has_served_all_since(ready_from_s)
                or self._load.first_piece_after(ready_from_s + SLOWEST_S)
            ):
                return
        self._report(fault.name, f"no service within {SERVE_S:g} s: {self._cluster.last_words()}")

    def _report(self, case: str, detail: str) -> None:
        self._load.findings.append(Finding(time.monotonic(), case, True, detail))

    @contextmanager
    def _counted_bytes(self, outcome: Outcome) -> Iterator[None]:
        network = self._cluster.network
        before = network.carried_bytes() if network is not None else 0
        weights_mb = self._cluster.weights_sent_mb()
        yield
        outcome.weights_mb = self._cluster.weights_sent_mb() - weights_mb
        if network is not None:
            outcome.carried_bytes = network.carried_bytes() - before
