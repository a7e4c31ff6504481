"""How fast a rank has been of late: the numbers behind a row of GET /stats."""

from __future__ import annotations

import time
from collections import deque

import psutil

from dllama.model.rank import RankModel

WINDOW_S = 10.0  # how far back "of late" reaches


class RankMeter:
    """Counts per token over the last ten seconds; call `note` after every step."""

    def __init__(self, model: RankModel) -> None:
        self._model = model
        self._notes: deque[tuple[float, int, int, int]] = deque([self._now()])

    def _now(self) -> tuple[float, int, int, int]:
        m = self._model
        return time.monotonic(), m.n_tokens, m.n_steps, m.compute_ns

    def note(self) -> None:
        now = self._now()
        self._notes.append(now)
        while len(self._notes) > 2 and now[0] - self._notes[0][0] > WINDOW_S:
            self._notes.popleft()

    def rates(self) -> dict[str, float]:
        """tokens_per_s (while computing), compute_ms per token, and weights_gb_per_s."""
        _, tokens, steps, ns = (b - a for a, b in zip(self._notes[0], self._notes[-1], strict=True))
        if not tokens or not ns:
            return {"tokens_per_s": 0.0, "compute_ms": 0.0, "weights_gb_per_s": 0.0}
        return {
            "tokens_per_s": round(tokens / ns * 1e9, 2),
            "compute_ms": round(ns / tokens / 1e6, 3),
            "weights_gb_per_s": round(self._model.weights.n_bytes * steps / ns, 2),
        }


def rss_bytes() -> int:
    """Memory of this process that is resident now."""
    return int(psutil.Process().memory_info().rss)


def rank_row(rank: int, host: str, model: RankModel, meter: RankMeter) -> dict[str, object]:
    """The row of a rank that has nobody to wait for."""
    rates = meter.rates()
    return {
        "rank": rank,
        "host": host,
        "threads": model.team.n_threads,
        **rates,
        "wait_ms": 0.0,
        "network_ms": 0.0,
        "sent_bytes": 0,
        "received_bytes": 0,
        "rss_bytes": rss_bytes(),
        "shard": {"kv_heads": model.weights.n_kv_heads, "hidden": model.weights.hidden_dim},
    }
