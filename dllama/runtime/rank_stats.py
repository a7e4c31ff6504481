"""How fast a rank has been of late: the numbers behind a row of GET /stats.

Steps that only decode are kept apart from those that read prompts: a token of a prompt costs a
fraction of one that is generated, and figures of both together would tell of neither.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

import psutil

from dllama.runtime.rank import RankModel
from dllama.step import Step
from kernels.cpu import isa

WINDOW_S = 10.0  # how far back "of late" reaches


class _Note(NamedTuple):
    """One step."""

    at_s: float
    n_tokens: int
    compute_ns: int


class RankMeter:
    """Counts per token over the last ten seconds of either kind; call `note` after every step."""

    def __init__(self, model: RankModel, clock: Callable[[], float] = time.monotonic) -> None:
        self._model = model
        self._clock = clock
        self._seen_ns = model.compute_ns
        self._decode: deque[_Note] = deque()
        self._prefill: deque[_Note] = deque()

    def note(self, step: Step) -> None:
        compute_ns = self._model.compute_ns - self._seen_ns
        self._seen_ns += compute_ns
        notes = self._decode if step.is_decode else self._prefill
        notes.append(_Note(self._clock(), step.n_tokens, compute_ns))
        while notes[-1].at_s - notes[0].at_s > WINDOW_S:
            notes.popleft()

    def rates(self) -> dict[str, float]:
        """Of decoding: tokens_per_s (while computing), compute_ms per token, weights_gb_per_s; and
        prefill_tokens_per_s. All 0 before there is something to tell."""
        tokens, ns = _sum(self._decode)
        prompt_tokens, prompt_ns = _sum(self._prefill)
        read_bytes = self._model.weights.n_bytes * len(self._decode)
        return {
            "tokens_per_s": round(tokens / max(ns, 1) * 1e9, 2),
            "prefill_tokens_per_s": round(prompt_tokens / max(prompt_ns, 1) * 1e9, 2),
            "compute_ms": round(ns / max(tokens, 1) / 1e6, 3),
            "weights_gb_per_s": round(read_bytes / max(ns, 1), 2),
        }


def _sum(notes: deque[_Note]) -> tuple[int, int]:
    """Tokens and nanoseconds of all."""
    return sum(note.n_tokens for note in notes), sum(note.compute_ns for note in notes)


def rss_bytes() -> int:
    """Memory of this process that is resident now."""
    return int(psutil.Process().memory_info().rss)


def rank_row(rank: int, host: str, model: RankModel, meter: RankMeter) -> dict[str, object]:
    """The row of a rank that has nobody to wait for."""
    rates = meter.rates()
    return {
        "rank": rank,
        "host": host,
        "isa": isa(),
        "threads": model.team.n_threads,
        **rates,
        "wait_ms": 0.0,
        "network_ms": 0.0,
        "sent_bytes": 0,
        "received_bytes": 0,
        "rss_bytes": rss_bytes(),
        "shard": {"kv_heads": model.weights.n_kv_heads, "hidden": model.weights.hidden_dim},
    }
