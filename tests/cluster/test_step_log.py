"""Per-token figures tell of decoding alone, whatever prompts are read in between."""

from __future__ import annotations

from types import SimpleNamespace
from typing import cast

import numpy as np

from cluster.mesh.collective import SyncTimes
from cluster.root.stats_rows import stats_row
from cluster.step_log import RECENT_STEPS, StepLog
from cluster.wire.messages import RankStats
from dllama.runtime.rank import RankModel
from dllama.runtime.rank_stats import WINDOW_S, RankMeter
from dllama.sharding.plan import Shard
from dllama.step import Step


def a_step(n_tokens: int, *, is_decode: bool) -> Step:
    rows = np.arange(n_tokens, dtype=np.int32)
    wanted = rows if is_decode else rows[-1:]
    starts = np.arange(n_tokens + 1, dtype=np.int32) if is_decode else np.array([0, n_tokens])
    pages = np.zeros((len(starts) - 1, 1), np.int32)
    return Step(rows, rows, starts, pages, wanted, np.ones_like(wanted))


def test_a_log_keeps_prompts_apart() -> None:
    log, none = StepLog(), SyncTimes()
    for _ in range(RECENT_STEPS + 5):
        log.add(a_step(2, is_decode=True), 4_000_000, none, none)
        log.add(a_step(100, is_decode=False), 50_000_000, none, none)
    assert log.n_decode == RECENT_STEPS
    assert log.decode().n_tokens == 2 * RECENT_STEPS
    assert log.decode().compute_ns == 4_000_000 * RECENT_STEPS
    assert log.prefill().n_tokens == 100 * RECENT_STEPS
    assert log.since_start.n_tokens == 102 * (RECENT_STEPS + 5)
    stats = RankStats(
        1,
        log.n_decode,
        *log.decode(),
        0,
        0,
        10**6,
        log.prefill().n_tokens,
        log.prefill().elapsed_ns,
    )
    shard = Shard(0, 1, range(1), range(1), range(1))
    row = stats_row(stats, shard, host="a", isa="avx2", threads=1, rss_bytes=0)
    assert row["compute_ms"] == 2.0  # 4 ms for two tokens
    assert row["tokens_per_s"] == 500.0
    assert row["prefill_tokens_per_s"] == 2000.0
    assert row["weights_gb_per_s"] == 0.25  # 1 MB every 4 ms


def test_a_meter_keeps_prompts_apart_and_forgets() -> None:
    weights = SimpleNamespace(n_bytes=10**6)
    model = SimpleNamespace(compute_ns=0, weights=weights)
    now = [0.0]
    meter = RankMeter(cast(RankModel, model), clock=lambda: now[0])
    assert set(meter.rates().values()) == {0.0}
    for _ in range(4):
        model.compute_ns += 50_000_000
        meter.note(a_step(100, is_decode=False))
        model.compute_ns += 4_000_000
        meter.note(a_step(2, is_decode=True))
    assert meter.rates() == {
        "tokens_per_s": 500.0,
        "prefill_tokens_per_s": 2000.0,
        "compute_ms": 2.0,
        "weights_gb_per_s": 0.25,
    }
    now[0] += WINDOW_S + 1
    model.compute_ns += 1_000_000
    meter.note(a_step(1, is_decode=True))
    assert meter.rates()["compute_ms"] == 1.0
