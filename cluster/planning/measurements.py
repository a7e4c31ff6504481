"""The measurements of a cluster: its kernels by rank, and its links by two ranks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from cluster.planning.links import LinkSpeed, Network
from cluster.planning.predict import PlanNode
from cluster.planning.report import NamedLink
from dllama.speeds import KernelSpeeds

LEAST_FACTOR, MOST_FACTOR = 0.2, 1.5
"""Of sums in relation to exchanges: what is outside was disturbed."""


@dataclass(frozen=True, slots=True)
class MeasuredLink:
    """The link of two ranks, the lower one first."""

    low: int
    high: int
    speed: LinkSpeed


@dataclass(frozen=True, slots=True)
class NodeFacts:
    """A node as it answered: what it is called, and the memory of its machine that is free."""

    label: str
    machine: str
    free_bytes: int


@dataclass(frozen=True, slots=True)
class Measurements:
    """Figures of all ranks, the root first."""

    speeds: Sequence[KernelSpeeds]
    links: Sequence[MeasuredLink]

    def of(self, ranks: Sequence[int]) -> Measurements:
        """Returns the figures of some ranks, in this order."""
        place = {rank: i for i, rank in enumerate(ranks)}
        links = []
        for link in self.links:
            if link.low in place and link.high in place:
                low, high = sorted((place[link.low], place[link.high]))
                links.append(MeasuredLink(low, high, link.speed))
        return Measurements([self.speeds[rank] for rank in ranks], links)

    def with_row_sum(self, row_bytes: int, seconds: float) -> Measurements:
        """Returns the same with links whose exchanges of up to `row_bytes` are as fast, all
        together, as a sum of as many bytes over all ranks was: links are measured by messages, and
        short sums made in compiled code."""
        expected = self.network().exchange_s(range(len(self.speeds)), row_bytes)
        if expected <= 0:
            return self
        factor = min(MOST_FACTOR, max(LEAST_FACTOR, seconds / expected))
        links = [replace(link, speed=link.speed.scaled(row_bytes, factor)) for link in self.links]
        return replace(self, links=links)

    def network(self) -> Network:
        return Network({(link.low, link.high): link.speed for link in self.links})

    def nodes(self, facts: Sequence[NodeFacts]) -> list[PlanNode]:
        """Returns the nodes of a plan."""
        return [
            PlanNode(each.label, each.machine, speeds, each.free_bytes)
            for each, speeds in zip(facts, self.speeds, strict=True)
        ]

    def named_links(self, facts: Sequence[NodeFacts]) -> list[NamedLink]:
        return [
            NamedLink((facts[link.low].label, facts[link.high].label), link.speed)
            for link in self.links
        ]
