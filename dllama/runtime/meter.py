"""Measures where the time of a rank's last steps goes, for its row of GET /stats.

Steps that only decode are kept apart from those that read prompts: a token of a prompt costs a
fraction of one that is generated, and figures over both would describe neither.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import psutil

from dllama.limits import Count
from dllama.step import Step

RECENT_STEPS = 64  # steps of each kind that the figures cover


@dataclass(slots=True)
class SyncTimes:
    """The time of a rank, by what it was spent on, in nanoseconds since the start."""

    compute_ns: int = 0
    wait_ns: int = 0
    network_ns: int = 0


class StepTimes(NamedTuple):
    """One step, or a sum of them; times in nanoseconds."""

    n_tokens: int = 0
    elapsed_ns: int = 0
    compute_ns: int = 0
    wait_ns: int = 0
    network_ns: int = 0


@dataclass(frozen=True, slots=True)
class RankFigures:
    """Sums over the last steps of a rank: of those that only decoded, but for the last two."""

    n_steps: Count = 0
    n_tokens: Count = 0
    elapsed_ns: Count = 0
    compute_ns: Count = 0
    wait_ns: Count = 0
    network_ns: Count = 0
    sent_bytes: Count = 0
    received_bytes: Count = 0
    weights_bytes: Count = 0
    prefill_tokens: Count = 0
    prefill_ns: Count = 0


class RankMeter:
    """Remembers the last steps of a rank, of both kinds, and the sum of all. Costs one append a
    step."""

    def __init__(self) -> None:
        self.since_start = StepTimes()
        self._decode: deque[StepTimes] = deque(maxlen=RECENT_STEPS)
        self._prefill: deque[StepTimes] = deque(maxlen=RECENT_STEPS)

    def add(
        self, step: Step, elapsed_ns: int, before: SyncTimes | None = None,
        after: SyncTimes | None = None,
    ) -> None:  # fmt: skip
        """Counts a step. What it computed after its last collective counts as computing; a rank
        that meets no others has no times of collectives."""
        wait_ns = after.wait_ns - before.wait_ns if before and after else 0
        network_ns = after.network_ns - before.network_ns if before and after else 0
        compute_ns = max(0, elapsed_ns - wait_ns - network_ns)
        times = StepTimes(step.n_tokens, elapsed_ns, compute_ns, wait_ns, network_ns)
        (self._decode if step.is_decode else self._prefill).append(times)
        self.since_start = _sum([self.since_start, times])

    def forget_steps(self) -> None:
        """Forgets the last steps, but not the sum of all."""
        self._decode.clear()
        self._prefill.clear()

    @property
    def n_decode(self) -> int:
        """Steps that `decode` sums up."""
        return len(self._decode)

    def decode(self) -> StepTimes:
        """Sums over the remembered steps that decoded and did nothing else."""
        return _sum(self._decode)

    def prefill(self) -> StepTimes:
        """Sums over the remembered steps that read prompts."""
        return _sum(self._prefill)

    def counters(self) -> dict[str, int]:
        """Nanoseconds of all steps so far; see Runner.counters."""
        spent = self.since_start
        return {
            "compute_ns": spent.compute_ns,
            "wait_ns": spent.wait_ns,
            "network_ns": spent.network_ns,
        }

    def figures(
        self, weights_bytes: int, sent_bytes: int = 0, received_bytes: int = 0
    ) -> RankFigures:
        """The rank's figures of the last steps."""
        prefill = self.prefill()
        return RankFigures(
            self.n_decode, *self.decode(), sent_bytes, received_bytes, weights_bytes,
            prefill.n_tokens, prefill.elapsed_ns,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class RankIdentity:
    """The constant part of a rank's row: its place, its machine and its share."""

    rank: int
    host: str
    isa: str
    threads: int
    n_kv_heads: int
    n_hidden: int  # columns of the feed-forward


def stats_row(who: RankIdentity, figures: RankFigures, rss_bytes: int) -> dict[str, object]:
    """Returns one rank's row of `workers` in GET /stats. Times are per token over the last steps
    that only decoded, zero before there are any; `prefill_tokens_per_s` is over those that read
    prompts."""
    tokens_ms = 1e6 * max(figures.n_tokens, 1)
    weights_read = figures.weights_bytes * figures.n_steps
    return {
        "rank": who.rank,
        "host": who.host,
        "isa": who.isa,
        "threads": who.threads,
        "tokens_per_s": round(figures.n_tokens / max(figures.elapsed_ns, 1) * 1e9, 2),
        "prefill_tokens_per_s": round(figures.prefill_tokens / max(figures.prefill_ns, 1) * 1e9, 2),
        "compute_ms": round(figures.compute_ns / tokens_ms, 3),
        "wait_ms": round(figures.wait_ns / tokens_ms, 3),
        "network_ms": round(figures.network_ns / tokens_ms, 3),
        "weights_gb_per_s": round(weights_read / max(figures.compute_ns, 1), 2),
        "sent_bytes": figures.sent_bytes,
        "received_bytes": figures.received_bytes,
        "rss_bytes": rss_bytes,
        "shard": {"kv_heads": who.n_kv_heads, "hidden": who.n_hidden},
    }


def rss_bytes() -> int:
    """Returns the resident memory of this process, in bytes."""
    return int(psutil.Process().memory_info().rss)


def _sum(times: Iterable[StepTimes]) -> StepTimes:
    return StepTimes(*(sum(column) for column in zip(StepTimes(), *times, strict=True)))
