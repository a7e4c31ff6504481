"""What the server itself can say of its speed: counts, and latencies of the recent past."""

from __future__ import annotations

from collections import deque

N_FIRST = 512  # requests that the percentiles of the time to first token look back on
N_GAPS = 4096  # tokens that the percentiles of the inter-token latency look back on


class Meter:
    """Counts requests and keeps a bounded number of the latest latencies, in seconds."""

    def __init__(self) -> None:
        self.n_open = 0
        self.n_total = 0
        self._first: deque[float] = deque(maxlen=N_FIRST)
        self._gaps: deque[float] = deque(maxlen=N_GAPS)

    def first_token(self, seconds: float) -> None:
        self._first.append(seconds)

    def gap(self, seconds: float) -> None:
        """The time between two tokens of one sequence."""
        self._gaps.append(seconds)

    def latency_ms(self) -> dict[str, float | None]:
        """Medians and 95th percentiles in milliseconds, None before the first token."""
        first, gaps = sorted(self._first), sorted(self._gaps)
        return {
            "ttft_p50": percentile_ms(first, 0.50),
            "ttft_p95": percentile_ms(first, 0.95),
            "itl_p50": percentile_ms(gaps, 0.50),
            "itl_p95": percentile_ms(gaps, 0.95),
        }


def percentile_ms(ordered: list[float], share: float) -> float | None:
    """The smallest value that at least `share` of `ordered` seconds do not exceed."""
    if not ordered:
        return None
    rank = max(0, -int(-len(ordered) * share // 1) - 1)
    return round(1000 * ordered[min(rank, len(ordered) - 1)], 3)
