"""Rates over busy time, percentiles over the latest."""

from __future__ import annotations

import pytest

from dllama.engine.stats import MAX_LATENCIES, EngineStats, Latencies, RateWindow


def test_a_rate_forgets_what_is_more_than_ten_busy_seconds_ago() -> None:
    rate = RateWindow()
    assert rate.tokens_per_s == 0.0
    for _ in range(20):
        rate.add(1000, 1.0)
    for _ in range(10):
        rate.add(30, 1.0)
    assert rate.tokens_per_s == pytest.approx(30.0)


def test_a_single_long_step_counts() -> None:
    rate = RateWindow()
    rate.add(100, 50.0)
    assert rate.tokens_per_s == 2.0
    rate.add(10, 20.0)
    assert rate.tokens_per_s == 0.5


def test_steps_without_time_do_no_harm() -> None:
    rate = RateWindow()
    rate.add(5, 0.0)
    assert rate.tokens_per_s == 0.0


def test_percentiles_are_of_the_latest() -> None:
    latencies = Latencies()
    assert latencies.percentile_ms(50) == 0.0
    for i in range(MAX_LATENCIES):
        latencies.add(1000.0 + i)
    for i in range(MAX_LATENCIES):
        latencies.add(i * 1e-3)
    assert latencies.percentile_ms(50) == pytest.approx(512.0)
    assert latencies.percentile_ms(95) == pytest.approx(972.0)
    assert latencies.percentile_ms(100) == pytest.approx(1023.0)


def test_a_mixed_step_counts_for_both_rates() -> None:
    stats = EngineStats()
    stats.add_step(n_prefill=100, n_decode=4, busy_s=2.0)
    stats.add_step(n_prefill=0, n_decode=4, busy_s=2.0)
    assert stats.rates() == {"prefill": 50.0, "decode": 2.0}
    assert stats.prefix_hit_rate == 0.0
