"""Per-token figures tell of decoding alone, whatever prompts are read in between."""

from __future__ import annotations

import numpy as np

from dllama.runtime.meter import (
    RECENT_STEPS,
    RankFigures,
    RankIdentity,
    RankMeter,
    SyncTimes,
    stats_row,
)
from dllama.step import Step

WHO = RankIdentity(rank=0, host="a", isa="avx2", threads=1, n_kv_heads=1, n_hidden=1)


def a_step(n_tokens: int, *, is_decode: bool) -> Step:
    rows = np.arange(n_tokens, dtype=np.int32)
    wanted = rows if is_decode else rows[-1:]
    starts = np.arange(n_tokens + 1, dtype=np.int32) if is_decode else np.array([0, n_tokens])
    pages = np.zeros((len(starts) - 1, 1), np.int32)
    return Step(rows, rows, starts, pages, wanted, np.ones_like(wanted))


def test_a_meter_keeps_prompts_apart() -> None:
    meter, none = RankMeter(), SyncTimes()
    for _ in range(RECENT_STEPS + 5):
        meter.add(a_step(2, is_decode=True), 4_000_000, none, none)
        meter.add(a_step(100, is_decode=False), 50_000_000, none, none)
    assert meter.n_decode == RECENT_STEPS
    assert meter.decode().n_tokens == 2 * RECENT_STEPS
    assert meter.decode().compute_ns == 4_000_000 * RECENT_STEPS
    assert meter.prefill().n_tokens == 100 * RECENT_STEPS
    assert meter.since_start.n_tokens == 102 * (RECENT_STEPS + 5)
    row = stats_row(WHO, meter.figures(weights_bytes=10**6), rss_bytes=0)
    assert row["compute_ms"] == 2.0  # 4 ms for two tokens
    assert row["tokens_per_s"] == 500.0
    assert row["prefill_tokens_per_s"] == 2000.0
    assert row["weights_gb_per_s"] == 0.25  # 1 MB every 4 ms


def test_a_meter_without_collectives_is_the_same_and_forgets() -> None:
    meter = RankMeter()
    idle = stats_row(WHO, RankFigures(), rss_bytes=0)
    assert {v for k, v in idle.items() if k.endswith(("_s", "_ms"))} == {0.0}
    for _ in range(4):
        meter.add(a_step(100, is_decode=False), 50_000_000)
        meter.add(a_step(2, is_decode=True), 4_000_000)
    row = stats_row(WHO, meter.figures(weights_bytes=10**6), rss_bytes=0)
    assert row["tokens_per_s"] == 500.0
    assert row["prefill_tokens_per_s"] == 2000.0
    assert row["compute_ms"] == 2.0
    assert row["weights_gb_per_s"] == 0.25
    assert row["wait_ms"] == row["network_ms"] == 0.0
    for _ in range(RECENT_STEPS):
        meter.add(a_step(1, is_decode=True), 1_000_000)
    row = stats_row(WHO, meter.figures(weights_bytes=10**6), rss_bytes=0)
    assert row["compute_ms"] == 1.0


def test_forgotten_steps_still_count_in_the_sum() -> None:
    meter = RankMeter()
    meter.add(a_step(1, is_decode=True), 5)
    meter.add(a_step(9, is_decode=False), 7)
    meter.forget_steps()
    assert meter.figures(9) == RankFigures(weights_bytes=9)
    assert meter.counters()["compute_ns"] == 12


def test_waiting_and_the_network_are_no_computing() -> None:
    meter = RankMeter()
    before, after = SyncTimes(5, 6, 7), SyncTimes(5, 1_000_006, 2_000_007)
    meter.add(a_step(1, is_decode=True), 4_000_000, before, after)
    row = stats_row(WHO, meter.figures(weights_bytes=0), rss_bytes=0)
    assert (row["compute_ms"], row["wait_ms"], row["network_ms"]) == (1.0, 1.0, 2.0)
