"""What is made of streams: percentiles, rates and ratios, against figures worked out by hand."""

from __future__ import annotations

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.load.clients import read_events
from benchmarks.load.figures import (
    Stream,
    decode_rate,
    intrusion_row,
    load_row,
    median_row,
    percentile,
    turn_row,
)
from benchmarks.load.server import LoadError


@given(st.lists(st.floats(0, 1e6), min_size=1), st.integers(1, 100))
def test_percentiles_are_those_of_numpy(values: list[float], share: int) -> None:
    assert percentile(values, share) == np.percentile(values, share, method="inverted_cdf")


def test_the_decode_rate_counts_what_comes_while_all_stream() -> None:
    early = Stream(0.0, stamps=[1.0, 2.0, 3.0, 4.0], n_tokens=4)
    late = Stream(0.0, stamps=[2.0, 3.0, 4.0, 5.0, 6.0], n_tokens=10)  # two tokens a text
    assert decode_rate([early, late]) == pytest.approx((2 + 4) / 2.0)  # from 2 s to 4 s
    assert decode_rate([early, Stream(0.0, stamps=[9.0, 9.5], n_tokens=2)]) == 0.0
    row = load_row([early, late])
    assert row["tokens"] == 14 and row["events"] == 9 and row["total_tokens_per_s"] == 14 / 6
    assert row["ttft_ms"] == {"p50": 1000.0, "p95": 2000.0, "p99": 2000.0}
    assert row["interval_ms"] == {"p50": 1000.0, "p95": 1000.0, "p99": 1000.0}


def test_a_stall_belongs_to_the_long_prompt_that_caused_it() -> None:
    stream = Stream(0.0, stamps=[1.0, 2.0, 3.0, 4.0, 11.0, 12.0, 13.0], n_tokens=7)
    long = Stream(4.5, stamps=[11.0], n_prompt=4000)
    row = intrusion_row([[stream]], long)
    assert row["intervals"] == [3, 1] and row["prompt_tokens"] == 4000 and row["ttft_ms"] == 6500.0
    assert row["ratio_p95"] == 7.0


def test_a_turn_is_compared_pair_by_pair() -> None:
    reused = [Stream(0.0, stamps=[s], text="a", n_prompt=40, n_cached=39) for s in (1, 2, 9)]
    slow = ((30, "a"), (60, "a"), (40, "b"))
    computed = [Stream(0.0, stamps=[s], text=t, n_cached=0) for s, t in slow]
    row = turn_row(reused, computed)
    assert row["ratio"] == 20.0 and row["cached_tokens"] == [39] * 3 and not row["same_text"]
    assert turn_row(reused[:2], computed[:2])["same_text"]


def test_medians_of_rows() -> None:
    rows = [{"a": a, "ms": {"p50": 10.0 * a}} for a in (3.0, 1.0, 2.0)]
    assert median_row(rows) == {"a": 2.0, "ms": {"p50": 20.0}}


def test_events_are_read_with_the_times_they_came_at() -> None:
    events = [
        {"choices": [{"delta": {"role": "assistant", "content": ""}}]},
        {"choices": [{"delta": {"content": "He"}}]},
        {"choices": [{"text": "llo"}]},
        {"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 2,
                                  "prompt_tokens_details": {"cached_tokens": 4}}},
    ]  # fmt: skip
    data = b"".join(b"data: " + orjson.dumps(event) + b"\n\n" for event in events)
    stream = Stream()
    read_events(stream, b":\n\n" + data + b"data: [DONE]\n\n", [1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
    assert (stream.text, stream.stamps) == ("Hello", [3.0, 4.0])
    assert (stream.n_prompt, stream.n_tokens, stream.n_cached) == (5, 2, 4)
    with pytest.raises(LoadError, match="out of pages"):
        read_events(Stream(), b'data: {"error": "out of pages"}\n\n', [1.0])
