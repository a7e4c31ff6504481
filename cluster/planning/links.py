"""The speed of the links between nodes, and what their exchanges take. Knows no sockets."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Annotated

from dllama.limits import Count, MaxLength

MORE_PEERS = 0.25  # of a link's latency: what a message to one more peer adds


@dataclass(frozen=True, slots=True)
class LinkPoint:
    """The time in which two nodes send each other `n_bytes` at once, median and 99th percentile,
    and the processor time that the sockets of one of them take meanwhile: copies, encryption."""

    n_bytes: Count
    p50_us: float
    p99_us: float
    cpu_us: float = 0.0


@dataclass(frozen=True, slots=True)
class LinkSpeed:
    """One link, measured at payloads of growing size. `interface` is what it goes through."""

    points: Annotated[list[LinkPoint], MaxLength(32)]
    interface: Annotated[str, MaxLength(256)] = ""

    @classmethod
    def rated(cls, latency_us: float, gbit_per_s: float, interface: str = "") -> LinkSpeed:
        """Returns a link of a latency and a bandwidth that are not measured but given."""
        longest = 1 << 20
        wire_us = longest * 8e-3 / gbit_per_s
        points = [
            LinkPoint(0, latency_us, latency_us),
            LinkPoint(longest, latency_us + wire_us, latency_us + wire_us),
        ]
        return cls(points, interface)

    def scaled(self, up_to_bytes: int, factor: float) -> LinkSpeed:
        """Returns a link whose short exchanges take `factor` times as long; the same where its
        bandwidth is read from one of them."""
        if any(p.n_bytes <= up_to_bytes for p in self.points[-2:]):
            return self
        points = [
            replace(p, p50_us=p.p50_us * factor, p99_us=p.p99_us * factor)
            if p.n_bytes <= up_to_bytes
            else p
            for p in self.points
        ]
        return replace(self, points=points)

    @property
    def is_sound(self) -> bool:
        """Whether these figures can be: payloads of growing size, each in a time above zero."""
        sizes = [p.n_bytes for p in self.points]
        return (
            bool(sizes)
            and all(small < large for small, large in pairwise(sizes))
            and all(0 < us < math.inf for p in self.points for us in (p.p50_us, p.p99_us))
            and all(0 <= p.cpu_us < math.inf for p in self.points)
        )

    @property
    def latency_us(self) -> float:
        """The median of the smallest exchange."""
        return self.points[0].p50_us

    @property
    def latency_p99_us(self) -> float:
        return self.points[0].p99_us

    @property
    def gbit_per_s(self) -> float | None:
        """What the largest two payloads tell of the bandwidth in each direction; None where they
        tell nothing: there is one payload only, or the larger one took no longer."""
        us_per_byte = self._us_per_byte
        return 8e-3 / us_per_byte if us_per_byte else None

    @property
    def _us_per_byte(self) -> float:
        if len(self.points) < 2:
            return 0.0
        small, large = self.points[-2:]
        return max(0.0, large.p50_us - small.p50_us) / (large.n_bytes - small.n_bytes)

    def seconds(self, n_bytes: float) -> float:
        """Returns the time of an exchange, between two measured payloads in proportion. Where no
        bandwidth is known, longer ones are no faster by the byte than the longest was."""
        first, last = self.points[0], self.points[-1]
        if n_bytes <= first.n_bytes:
            return first.p50_us / 1e6
        for small, large in pairwise(self.points):
            if n_bytes <= large.n_bytes:
                part = (n_bytes - small.n_bytes) / (large.n_bytes - small.n_bytes)
                return (small.p50_us + part * (large.p50_us - small.p50_us)) / 1e6
        us_per_byte = self._us_per_byte or last.p50_us / max(1, last.n_bytes)
        return (last.p50_us + (n_bytes - last.n_bytes) * us_per_byte) / 1e6

    def cpu_seconds(self, n_bytes: float) -> float:
        """Returns the processor time that the sockets of one node take of an exchange: that of the
        measured payload that is no shorter, in proportion, else of the longest."""
        point = next((p for p in self.points if p.n_bytes >= n_bytes), self.points[-1])
        return point.cpu_us / 1e6 * n_bytes / point.n_bytes if point.n_bytes else 0.0

    def wire_seconds(self, n_bytes: float) -> float:
        """Returns the part of an exchange that grows with its bytes."""
        return max(0.0, self.seconds(n_bytes) - self.latency_us / 1e6)


class Network:
    """The links of a cluster, by the positions of their two nodes; `rest` is every other link."""

    def __init__(
        self, links: Mapping[tuple[int, int], LinkSpeed], rest: LinkSpeed | None = None
    ) -> None:
        self._links = {frozenset(pair): link for pair, link in links.items()}
        self._rest = rest

    def between(self, one: int, other: int) -> LinkSpeed:
        """Returns the link of two nodes; where it was not measured, the slowest of the others."""
        link = self._links.get(frozenset((one, other)), self._rest)
        return link or max(self._links.values(), key=lambda each: each.seconds(1 << 16))

    def exchange_s(self, nodes: Sequence[int], n_bytes: float) -> float:
        """Returns the time in which each node sends every other `n_bytes` and has theirs: all that
        a node sends goes through its own interface, one message after the other."""
        return max(self._of_node(node, nodes, n_bytes) for node in nodes)

    def _of_node(self, node: int, nodes: Iterable[int], n_bytes: float) -> float:
        links = [self.between(node, other) for other in nodes if other != node]
        if not links:
            return 0.0
        slowest = max(links, key=lambda link: link.seconds(n_bytes))
        more = [link for link in links if link is not slowest]
        more += [slowest] * (len(links) - 1 - len(more))  # one link stands for several nodes
        return slowest.seconds(n_bytes) + sum(
            link.wire_seconds(n_bytes) + MORE_PEERS * link.latency_us / 1e6 for link in more
        )

    def cpu_s(self, nodes: Sequence[int], n_bytes: float) -> float:
        """Returns the processor time that an exchange takes of the busiest node."""
        return max(
            sum(self.between(node, other).cpu_seconds(n_bytes) for other in nodes if other != node)
            for node in nodes
        )

    def slowest_latency_s(self, nodes: Sequence[int]) -> float:
        """Returns the largest latency between the first node and another."""
        first, *others = nodes
        return max((self.between(first, other).latency_us / 1e6 for other in others), default=0.0)
