"""The figures of streams of tokens: rates, percentiles and ratios. Knows no server and no clock."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

SHARES = (50, 95, 99)  # the percentiles that are told

Json = dict[str, object]


@dataclass(slots=True)
class Stream:
    """One streamed answer as its reader saw it; times in seconds of one clock. `stamps` are of the
    events that brought text, `n_events` counts all while they come, and `n_tokens` is what the
    server counted."""

    sent_s: float = 0.0
    n_events: int = 0
    stamps: list[float] = field(default_factory=list)
    text: str = ""
    n_prompt: int = 0
    n_cached: int | None = None  # None where the server does not tell
    n_tokens: int = 0

    @property
    def ttft_s(self) -> float:
        """From the request to its first text."""
        return self.stamps[0] - self.sent_s

    @property
    def gaps_s(self) -> list[float]:
        """The times between two events with text."""
        return [b - a for a, b in zip(self.stamps, self.stamps[1:], strict=False)]

    def gaps_within(self, begin_s: float, end_s: float) -> list[float]:
        """Those of `gaps_s` whose middle is in a window: a stall that begins with the window and
        ends with it is all in it."""
        pairs = zip(self.stamps, self.stamps[1:], strict=False)
        return [b - a for a, b in pairs if begin_s <= (a + b) / 2 <= end_s]


def percentile(values: Iterable[float], share: int) -> float:
    """The smallest value that at least `share` percent do not exceed; 0 where there are none."""
    ordered = sorted(values)
    if not ordered:
        return 0.0
    return ordered[max(0, -(-len(ordered) * share // 100) - 1)]


def percentiles_ms(seconds: Sequence[float]) -> dict[str, float]:
    return {f"p{share}": round(percentile(seconds, share) * 1e3, 3) for share in SHARES}


def decode_rate(streams: Sequence[Stream]) -> float:
    """Tokens per second while every stream had begun and none had ended, which is what a benchmark
    of decoding measures. A text of several tokens counts as all of them."""
    begin_s = max(s.stamps[0] for s in streams)
    end_s = min(s.stamps[-1] for s in streams)
    if end_s <= begin_s:
        return 0.0
    n_tokens = sum(
        sum(begin_s < t <= end_s for t in s.stamps) * s.n_tokens / len(s.stamps) for s in streams
    )
    return n_tokens / (end_s - begin_s)


def load_row(streams: Sequence[Stream]) -> Json:
    """The figures of one round of streams that were sent at once."""
    n_tokens = sum(s.n_tokens for s in streams)
    seconds = max(s.stamps[-1] for s in streams) - min(s.sent_s for s in streams)
    return {
        "clients": len(streams),
        "tokens": n_tokens,
        "events": sum(len(s.stamps) for s in streams),
        "total_tokens_per_s": n_tokens / seconds,
        "decode_tokens_per_s": decode_rate(streams),
        "ttft_ms": percentiles_ms([s.ttft_s for s in streams]),
        "interval_ms": percentiles_ms([gap for s in streams for gap in s.gaps_s]),
    }


def intrusion_row(answers: Sequence[Sequence[Stream]], long: Stream) -> Json:
    """The intervals in each client's answers before a long prompt was sent, and from then to its
    first token."""
    begin_s = max(mine[0].stamps[0] for mine in answers)
    streams = [stream for mine in answers for stream in mine]
    before = [g for s in streams for g in s.gaps_within(begin_s, long.sent_s)]
    during = [g for s in streams for g in s.gaps_within(long.sent_s, long.stamps[0])]
    calm, busy = percentile(before, 95), percentile(during, 95)
    return {
        "prompt_tokens": long.n_prompt,
        "ttft_ms": round(long.ttft_s * 1e3, 3),
        "intervals": [len(before), len(during)],
        "before_ms": percentiles_ms(before),
        "during_ms": percentiles_ms(during),
        "ratio_p95": busy / calm if calm else 0.0,
    }


def turn_row(reused: Sequence[Stream], computed: Sequence[Stream]) -> Json:
    """A chat's last turn, asked in pairs with and without `cache_prompt`."""
    with_s = statistics.median(s.ttft_s for s in reused)
    without_s = statistics.median(s.ttft_s for s in computed)
    return {
        "prompt_tokens": reused[0].n_prompt,
        "cached_tokens": [s.n_cached for s in reused],
        "cached_tokens_without": [s.n_cached for s in computed],
        "ttft_ms": round(with_s * 1e3, 3),
        "ttft_without_ms": round(without_s * 1e3, 3),
        "ratio": without_s / with_s,
        "same_text": all(a.text == b.text for a, b in zip(reused, computed, strict=True)),
    }


def median_row(rows: Sequence[Json]) -> Json:
    """One row of the medians of each figure of several alike rows, and their rates one by one."""
    medians: Json = {}
    for name, value in rows[0].items():
        values = [row[name] for row in rows]
        if isinstance(value, dict):
            medians[name] = median_row([v for v in values if isinstance(v, dict)])
        else:
            medians[name] = statistics.median(v for v in values if isinstance(v, int | float))
    return medians
