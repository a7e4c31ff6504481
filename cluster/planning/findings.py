"""Compares what a cluster does with what was predicted, and names who costs what. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cluster.planning.predict import Prediction

SLOWER = 1.15  # than expected: what a prediction is good for, and what noise makes
LEAST_COST = 0.05  # of a token's time, below which nothing is said
NETWORK_SLOWER = 1.5
NETWORK_MS = 0.5  # a token, which a network that has changed costs at least


@dataclass(frozen=True, slots=True)
class RankTimes:
    """A rank's milliseconds of a decoded token; zeros before there was one."""

    label: str
    compute_ms: float
    wait_ms: float
    network_ms: float

    @property
    def total_ms(self) -> float:
        return self.compute_ms + self.wait_ms + self.network_ms


def findings(ranks: Sequence[RankTimes], predicted: Prediction | None) -> list[str]:
    """Returns a sentence for each rank, "" where there is nothing to say; rank 0 has those of the
    network."""
    said = [""] * len(ranks)
    if len(ranks) < 2 or min(rank.compute_ms for rank in ranks) <= 0:
        return said
    slowest = max(range(len(ranks)), key=lambda r: ranks[r].compute_ms)
    said[slowest] = _straggler(ranks, slowest, predicted)
    if predicted is not None:
        changed = _network(min(rank.network_ms for rank in ranks), predicted)
        said[0] = " ".join(part for part in (said[0], changed) if part)
    return said


def _straggler(ranks: Sequence[RankTimes], slowest: int, predicted: Prediction | None) -> str:
    """All wait for the slowest: what it costs is the time by which it is later than expected, or
    than the next one."""
    own = ranks[slowest]
    others = max(rank.compute_ms for r, rank in enumerate(ranks) if r != slowest)
    expected, than = others, f"the others {others:.1f} at most"
    if predicted is not None:
        of_plan = predicted.decode.ranks[slowest].total * 1e3
        if of_plan > others:
            expected, than = of_plan, f"{of_plan:.1f} were predicted"
    cost = (own.compute_ms - expected) / own.total_ms
    if own.compute_ms < SLOWER * expected or cost < LEAST_COST:
        return ""
    return (
        f"{own.label} costs {cost:.0%}: it computes {own.compute_ms:.1f} ms a token, and {than}; "
        "see what else runs there, or give it a smaller share."
    )


def _network(measured_ms: float, predicted: Prediction) -> str:
    expected = predicted.decode.network * 1e3
    if measured_ms < NETWORK_SLOWER * expected or measured_ms - expected < NETWORK_MS:
        return ""
    return (
        f"The network takes {measured_ms:.1f} ms a token, where {expected:.1f} were predicted: a "
        "link has changed since it was measured, others use it, or a node is held up between two "
        "sums; `dllama plan` measures again."
    )
