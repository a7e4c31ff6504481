"""Measures the links of a mesh: two ranks send each other payloads at once, as in a collective.

Each pair of ranks has its turn in a round; in a round all pairs are disjoint, so that a rank is in
one exchange at a time. Of a pair the lower rank holds the watch, and its payloads begin with the
number of the size that follows.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Annotated

import numpy as np

from cluster.mesh.filing import Key, Phase
from cluster.mesh.links import HEADER_BYTES, MeshLinks
from cluster.planning.links import LinkPoint, LinkSpeed
from dllama.errors import ProtocolError
from dllama.limits import Range

SIZES = (2 << 10, 8 << 10, 64 << 10, 256 << 10, 1 << 20)  # bytes: a row's sums, and a prompt's
ROW_BYTES = SIZES[1]  # of a row's sums, of models of 1B
LONG_FROM = 3  # of a long step, which travel as its messages do
LAST = len(SIZES)  # follows the last exchange
WARM = 3  # first exchanges of a size, which do not count
BUDGET_S = 0.012  # of a size, where exchanges are short
LEAST, MOST = 8, 32  # exchanges of a size that count; of large payloads one is enough
SLOW_S = 0.05  # an exchange, after which no larger ones follow
CACHE_BYTES = 4 << 20  # read between two short exchanges, as a step computes between two
WORK_BYTES = 256 << 10  # read again and again beside a long exchange: a part of a second cache
WORKS, MOST_WORKS = 3, 6  # exchanges beside which that is measured
TRIALS, WORKS_OF_TRIAL = 9, 32
LONGER = 1.5  # what is computed beside an exchange takes so many times as long


@dataclass(frozen=True, slots=True)
class PeerLink:
    """The link from a rank to a higher one."""

    rank: Annotated[int, Range(1, 1 << 16)]
    speed: LinkSpeed


def rounds(world_size: int) -> Iterator[list[tuple[int, int]]]:
    """Yields rounds in which every rank meets another one, each pair once (the circle method)."""
    n = world_size + world_size % 2
    for turn in range(n - 1):
        order = [0, *((i + turn) % (n - 1) + 1 for i in range(n - 1))]
        pairs = [(min(p), max(p)) for p in zip(order[: n // 2], order[::-1], strict=False)]
        yield [pair for pair in pairs if pair[1] < world_size]


def probe_links(links: MeshLinks, world_size: int, through: Callable[[int], str]) -> list[PeerLink]:
    """Returns this rank's links to all higher ones; every rank of the mesh calls it. `through`
    names what a rank is reached through. Raises PeerLost, ProtocolError."""
    found = []
    for number, pairs in enumerate(rounds(world_size), start=1):
        links.sequence = number
        for low, high in pairs:
            if low == links.rank:
                found.append(PeerLink(high, _Lead(links, high).measure(through(high))))
            elif high == links.rank:
                _follow(links, low)
    return sorted(found, key=lambda link: link.rank)


class _Exchange:
    """The exchanges of two ranks, whose messages are made once."""

    def __init__(self, links: MeshLinks, peer: int) -> None:
        self._links, self._peer, self._number = links, peer, 0
        self.sending_s = 0.0  # of this thread, which seals what it sends
        self._messages = [bytearray(HEADER_BYTES + size) for size in SIZES]
        self._cache = np.zeros(CACHE_BYTES // 8, np.int64)

    def swap(
        self, size: int, following: int, meanwhile: Callable[[], object] = lambda: None
    ) -> int:
        """Sends a payload, does what is to be done `meanwhile`, and takes the peer's payload;
        returns the size that this says will follow."""
        links, message = self._links, self._messages[size]
        message[HEADER_BYTES] = following
        links.pack_header(message, Phase.PARTIAL, self._number, links.sequence, 0)
        began = time.perf_counter()
        links.send(self._peer, message, is_awaited=size < LONG_FROM)
        self.sending_s += time.perf_counter() - began
        meanwhile()
        key = Key(links.sequence, Phase.PARTIAL, self._number, self._peer)
        payload = links.take(key).payload
        self._number += 1
        if len(payload) != SIZES[size]:
            raise ProtocolError(
                f"rank {self._peer} sent {len(payload)} bytes to a measurement where rank "
                f"{links.rank} expects {SIZES[size]}; install the same dllama on every node"
            )
        return int(payload[0])

    def compute(self, size: int) -> None:
        """Leaves the caches as a step does, between two exchanges of few rows."""
        if SIZES[size] < SIZES[-1] // 4:
            self._cache.sum()


class _Lead(_Exchange):
    """The side that holds the watch."""

    _sockets_s = 0.0  # of the exchanges of one size
    _lost_s: list[float]  # by what is computed beside one
    _work_s: float

    def measure(self, through: str) -> LinkSpeed:
        points = []
        self._work_s = self._time_work()
        for size in range(LAST):
            self._sockets_s, self._lost_s = 0.0, []
            times = self._times(size)
            median = times[len(times) // 2]
            slow_one = times[min(len(times) - 1, len(times) * 99 // 100)]
            # the two clocks are read one after the other: nothing may come out as less
            lost_s = min(self._lost_s, default=0.0)  # others waited for the peer
            cpu_s = max(0.0, self._sockets_s / len(times), lost_s)
            points.append(LinkPoint(SIZES[size], median * 1e6, slow_one * 1e6, cpu_s * 1e6))
            if self._is_done:
                break
        return LinkSpeed(points, through)

    def _times(self, size: int) -> list[float]:
        """Returns the sorted seconds of the exchanges of a size."""
        times: list[float] = []
        warm, until = WARM if size < LAST - 1 else 1, 0.0
        self._is_done = False
        while True:
            least = LEAST if size < LAST - 2 else 1
            is_last = not warm and len(times) + 1 >= (
                least if time.perf_counter() > until else MOST
            )
            is_slow = bool(times) and times[-1] > SLOW_S
            if size >= LONG_FROM and times and not is_slow:
                while len(self._lost_s) < (WORKS if is_last else min(len(times), MOST_WORKS)):
                    self._lost_s.append(self._lost_beside(size, times[-1]))
            following = size
            if is_last or is_slow:
                following = LAST if is_slow or size + 1 == LAST else size + 1
            self.compute(size)
            began, sockets_s = time.perf_counter(), _other_threads_s() + self.sending_s
            self.swap(size, following)
            taken = time.perf_counter() - began
            sockets_s = _other_threads_s() + self.sending_s - sockets_s
            if warm:
                warm -= 1
                until = time.perf_counter() + BUDGET_S
                continue
            times.append(taken)
            self._sockets_s += sockets_s
            if following != size:
                self._is_done = following == LAST
                return sorted(times)

    def _lost_beside(self, size: int, exchange_s: float) -> float:
        """Returns by how much longer something takes to compute beside an exchange: the system's
        part of sending and receiving is no thread's time, and caches are shared with it."""
        n_times = max(1, round(LONGER * exchange_s / self._work_s))
        began = time.perf_counter()
        self.swap(size, size, lambda: self._work(n_times))
        return time.perf_counter() - began - n_times * self._work_s

    def _work(self, n_times: int) -> None:
        row = self._cache[: WORK_BYTES // 8]
        np.broadcast_to(row, (n_times, len(row))).sum()  # in one call, without Python's lock

    def _time_work(self) -> float:
        """Returns the seconds that the work takes once, while nothing travels."""
        times = []
        for _ in range(TRIALS):
            began = time.perf_counter()
            self._work(WORKS_OF_TRIAL)
            times.append((time.perf_counter() - began) / WORKS_OF_TRIAL)
        return sorted(times)[TRIALS // 2]


def _other_threads_s() -> float:
    """Returns the processor time of all other threads of this process: of its sockets."""
    return time.process_time() - time.thread_time()


def _follow(links: MeshLinks, leader: int) -> None:
    """Exchanges as the leader says. Raises ProtocolError for a size that does not exist."""
    exchange, size = _Exchange(links, leader), 0
    while size != LAST:
        exchange.compute(size)
        following = exchange.swap(size, 0)
        if following not in (size, size + 1, LAST):
            raise ProtocolError(
                f"rank {leader} measures a link with the unknown size {following}; install the "
                "same dllama on every node"
            )
        size = following
