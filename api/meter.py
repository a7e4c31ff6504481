"""What the server itself can say of its work on each model: counts since its start, what is open
now, and latencies of the recent past."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

N_FIRST = 512  # requests that the percentiles of the time to first token look back on
N_GAPS = 4096  # tokens that the percentiles of the inter-token latency look back on


class Measured(Protocol):
    """A sequence as the meter sees it; times in seconds of one clock."""

    n_prompt: int
    n_cached: int
    n_completion: int
    submitted_at: float
    first_at: float | None
    last_at: float


@dataclass(slots=True)
class RequestCounts:
    """Requests for answers: those that are open now, and all since the start."""

    n_open: int = 0
    n_total: int = 0


class Meter:
    """Counts the sequences of one model, and keeps a bounded number of the latest latencies."""

    def __init__(self) -> None:
        self.last_scrape = LastScrape()
        self.n_prompt_tokens = self.n_cached_tokens = self.n_predicted_tokens = 0
        self.prompt_s = self.predicted_s = 0.0
        self.n_tokens_max = 0  # of one sequence, prompt and answer
        self._first: deque[float] = deque(maxlen=N_FIRST)
        self._gaps: deque[float] = deque(maxlen=N_GAPS)
        self._slots: dict[int, Measured] = {}

    def opened(self, sequence: Measured) -> int:
        """Records that a sequence begins. Returns its number until it ends, the lowest free one."""
        slot = next(i for i in range(len(self._slots) + 1) if i not in self._slots)
        self._slots[slot] = sequence
        return slot

    def closed(self, slot: int) -> None:
        """Records that a sequence has ended, and its counts; unknown numbers are ignored."""
        sequence = self._slots.pop(slot, None)
        if sequence is None or sequence.first_at is None:
            return
        self.n_prompt_tokens += sequence.n_prompt - sequence.n_cached
        self.n_cached_tokens += sequence.n_cached
        self.n_predicted_tokens += sequence.n_completion
        self.prompt_s += sequence.first_at - sequence.submitted_at
        self.predicted_s += sequence.last_at - sequence.first_at
        self.n_tokens_max = max(self.n_tokens_max, sequence.n_prompt + sequence.n_completion)

    def sequences(self) -> Iterator[tuple[int, Measured]]:
        """Yields the open sequences with their numbers, the oldest first."""
        yield from self._slots.items()

    def first_token(self, seconds: float) -> None:
        self._first.append(seconds)

    def gap(self, seconds: float) -> None:
        """Records the time between two tokens of one sequence."""
        self._gaps.append(seconds)

    def latency_ms(self) -> dict[str, float | None]:
        """Returns medians and 95th percentiles in milliseconds, None before the first token."""
        first, gaps = sorted(self._first), sorted(self._gaps)
        return {
            "ttft_p50": percentile_ms(first, 0.50),
            "ttft_p95": percentile_ms(first, 0.95),
            "itl_p50": percentile_ms(gaps, 0.50),
            "itl_p95": percentile_ms(gaps, 0.95),
        }


def percentile_ms(ordered: list[float], share: float) -> float | None:
    """Returns the smallest value that at least `share` of `ordered` seconds do not exceed."""
    if not ordered:
        return None
    rank = max(0, -int(-len(ordered) * share // 1) - 1)
    return round(1000 * ordered[min(rank, len(ordered) - 1)], 3)


@dataclass(slots=True)
class LastScrape:
    """Totals at the last request for /metrics; its rates are averages since then."""

    prompt_tokens: int = 0
    prompt_s: float = 0.0
    predicted_tokens: int = 0
    predicted_s: float = 0.0

    def rates(self, meter: Meter) -> tuple[float, float]:
        """Returns tokens a second since the last call, of prompts and of answers."""
        prompt = rate(meter.n_prompt_tokens - self.prompt_tokens, meter.prompt_s - self.prompt_s)
        predicted = rate(
            meter.n_predicted_tokens - self.predicted_tokens, meter.predicted_s - self.predicted_s
        )
        self.prompt_tokens, self.prompt_s = meter.n_prompt_tokens, meter.prompt_s
        self.predicted_tokens, self.predicted_s = meter.n_predicted_tokens, meter.predicted_s
        return prompt, predicted


def rate(amount: float, per: float) -> float:
    return amount / per if per > 0 else 0.0
