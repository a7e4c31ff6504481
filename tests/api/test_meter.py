"""Percentiles of a bounded past."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from api.meter import N_FIRST, Meter, percentile_ms


@given(
    st.lists(st.integers(0, 1000), min_size=1, max_size=60), st.sampled_from([0.01, 0.5, 0.95, 1])
)
def test_a_percentile_is_the_smallest_value_that_covers_its_share(
    values: list[int], share: float
) -> None:
    seconds = sorted(float(value) for value in values)
    found = percentile_ms(seconds, share)
    covering = [
        v for v in seconds if sum(w <= v for w in seconds) >= math.ceil(share * len(seconds))
    ]
    assert found == 1000 * min(covering)


def test_nothing_is_known_before_the_first_token() -> None:
    assert set(Meter().latency_ms().values()) == {None}


def test_old_latencies_are_forgotten() -> None:
    meter = Meter()
    for _ in range(N_FIRST):
        meter.first_token(9.0)
    for _ in range(N_FIRST):
        meter.first_token(1.0)
    assert meter.latency_ms()["ttft_p95"] == 1000.0
