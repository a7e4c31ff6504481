"""Counters, rates and latencies of one engine, in the shape of GET /stats. Reads no clock."""

from __future__ import annotations

from collections import deque

from dllama.engine.scheduler import Scheduler
from dllama.engine.sequence import Sequence

WINDOW_S = 10.0  # busy time that a rate covers
MAX_LATENCIES = 1024  # latest durations that percentiles cover


class RateWindow:
    """Tokens per second over the last WINDOW_S seconds of work; idle time does not count."""

    def __init__(self) -> None:
        self._steps: deque[tuple[int, float]] = deque()  # (tokens, seconds)
        self._tokens = 0
        self._busy_s = 0.0

    def add(self, n_tokens: int, busy_s: float) -> None:
        self._steps.append((n_tokens, busy_s))
        self._tokens += n_tokens
        self._busy_s += busy_s
        while self._busy_s - self._steps[0][1] >= WINDOW_S:
            old_tokens, old_s = self._steps.popleft()
            self._tokens -= old_tokens
            self._busy_s -= old_s

    @property
    def tokens_per_s(self) -> float:
        """0 before the first step."""
        return self._tokens / self._busy_s if self._busy_s > 0.0 else 0.0


class Latencies:
    """The last MAX_LATENCIES durations, for their percentiles."""

    def __init__(self) -> None:
        self._seconds: deque[float] = deque(maxlen=MAX_LATENCIES)

    def add(self, seconds: float) -> None:
        self._seconds.append(seconds)

    def percentile_ms(self, percent: float) -> float:
        """The nearest-rank percentile in milliseconds; 0 before the first."""
        if not self._seconds:
            return 0.0
        ranked = sorted(self._seconds)
        return ranked[min(int(len(ranked) * percent / 100.0), len(ranked) - 1)] * 1e3


class EngineStats:
    """Counters of one engine since it started."""

    def __init__(self) -> None:
        self.n_finished = 0
        self.n_aborted = 0
        self.n_failed = 0
        self.n_steps = self.n_decode_steps = 0  # steps with decode rows count in both
        self.n_decode_tokens = 0
        self.n_prompt_tokens = 0  # of sequences that began to answer
        self.n_cached_tokens = 0  # those among them that were found in the KV cache
        self.n_recoveries = 0  # of the nodes, after a loss or a change of them
        self.recovery_s = 0.0  # without steps
        self.prefill = RateWindow()
        self.decode = RateWindow()
        self.ttft = Latencies()  # from submit to the first token
        self.itl = Latencies()  # from a token to the next

    def add_step(self, n_prefill: int, n_decode: int, busy_s: float) -> None:
        """Counts a step; a mixed one enters both rates with its whole duration."""
        self.n_steps += 1
        self.n_decode_steps += n_decode > 0
        self.n_decode_tokens += n_decode
        if n_prefill:
            self.prefill.add(n_prefill, busy_s)
        if n_decode:
            self.decode.add(n_decode, busy_s)

    def note_tokens(self, sequence: Sequence, now_s: float, n: int) -> None:
        """Records that a sequence has got `n` tokens at once."""
        if n == 0:
            return
        if sequence.last_token_s is None:
            self.ttft.add(now_s - sequence.arrived_s)
            self.n_prompt_tokens += sequence.n_prompt
            self.n_cached_tokens += sequence.n_cached
        else:
            for _ in range(n):
                self.itl.add((now_s - sequence.last_token_s) / n)
        sequence.last_token_s = now_s

    def note_end(self, *, is_failure: bool) -> None:
        """Counts the end of a sequence."""
        self.n_failed += is_failure
        self.n_finished += not is_failure

    def add_recovery(self, seconds: float) -> None:
        """Counts a recovery and the time that sequences waited for it."""
        self.n_recoveries += 1
        self.recovery_s += seconds

    @property
    def prefix_hit_rate(self) -> float:
        """The share of prompt tokens found in the KV cache; 0 before the first."""
        return self.n_cached_tokens / self.n_prompt_tokens if self.n_prompt_tokens else 0.0

    def report(self, scheduler: Scheduler) -> dict[str, object]:
        """The engine's own part of GET /stats."""
        pool = scheduler.pool
        return {
            "sequences": {
                "waiting": len(scheduler.waiting),
                "running": len(scheduler.running),
                "finished": self.n_finished,
                "aborted": self.n_aborted,
                "failed": self.n_failed,
                "preempted": scheduler.n_preempted,
                "sessions": len(scheduler.kv.sessions),
            },
            "kv": {
                "pages_used": pool.n_used,
                "pages_kept": pool.n_kept,
                "pages_total": pool.n_pages,
                "prefix_hit_rate": self.prefix_hit_rate,
            },
            "steps": {
                "total": self.n_steps,
                "decode": self.n_decode_steps,
                "decode_tokens": self.n_decode_tokens,
            },
            "recovery": {"total": self.n_recoveries, "seconds": self.recovery_s},
            "tokens_per_s": self.rates(),
            "latency_ms": self.latencies(),
        }

    def rates(self) -> dict[str, object]:
        """`tokens_per_s` of GET /stats."""
        return {"prefill": self.prefill.tokens_per_s, "decode": self.decode.tokens_per_s}

    def latencies(self) -> dict[str, object]:
        """`latency_ms` of GET /stats."""
        return {
            "ttft_p50": self.ttft.percentile_ms(50),
            "ttft_p95": self.ttft.percentile_ms(95),
            "itl_p50": self.itl.percentile_ms(50),
            "itl_p95": self.itl.percentile_ms(95),
        }
