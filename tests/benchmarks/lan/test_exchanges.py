"""What ranks exchange is counted by its size, and times of plain TCP are read."""

from __future__ import annotations

import pytest

from benchmarks.lan.exchanges import exchanges_of, raw_tcp_words, read_spent
from benchmarks.random_model import SHAPES


def test_exchanges_are_counted_by_their_size() -> None:
    shape = SHAPES["llama-3.2-1b"]
    exact, prompt, q80, _ = exchanges_of(shape, ["exact", "f32", "q80"], [1, 512])
    assert exact.sync_types == ("exact", "f32") and exact.n_bytes == 4 * 2048
    assert exact.n == 2 * 16 + 1
    assert prompt.n_rows == 512 and prompt.n_bytes == 512 * exact.n_bytes
    assert q80.sync_types == ("q80",) and q80.n_bytes == 2048 + 2 * 64


def test_times_are_told_in_microseconds() -> None:
    first, second = read_spent("100.00 50.00 25.00\n2000.00 0.00 1000.00\n")
    assert (first.compute_ms, first.wait_ms, first.network_ms) == (0.1, 0.05, 0.025)
    assert first.lost_ms == pytest.approx(0.075) and second.lost_ms == 1.0


def test_the_program_is_told_six_numbers() -> None:
    words = raw_tcp_words(8192, 33, 64, read_bytes=1 << 20, looks=True)
    assert words == ["8192", "33", "64", "0", "1048576", "1"]
