"""What ranks exchange is counted by its size, and times of plain TCP are read."""

from __future__ import annotations

from dataclasses import replace

import pytest

from benchmarks.lan.exchanges import exchanges_of, raw_tcp_words, read_spent
from benchmarks.random_model import SHAPES


def test_exchanges_are_counted_by_their_size() -> None:
    shape = SHAPES["llama-3.2-1b"]
    exact, _, q80, _ = exchanges_of(shape, ["exact", "f32", "q80"], [1, 512], normed_quants=True)
    assert exact.sync_types == ("exact", "f32") and exact.n_bytes == 4 * 2048
    assert exact.n == 2 * 16 + 1
    assert q80.sync_types == ("q80",) and q80.n_bytes == 2048 + 2 * 64


def test_a_prompt_exchanges_what_the_planner_says() -> None:
    """Half of the addends, and half of the rows that are read: quantized, or as floats."""
    shape, dim = SHAPES["llama-3.2-1b"], 2048
    for normed_quants, of_value in ((True, 36 / 32), (False, 4)):
        [exact, q80] = exchanges_of(shape, ["exact", "q80"], [512], normed_quants=normed_quants)
        assert exact.n_rows == 512
        assert exact.n_bytes == 256 * dim * 4 + 256 * dim * of_value
        assert q80.n_bytes == 256 * dim * 34 / 32 + 256 * dim * of_value
        assert exact.n == 2 * 16 - 1, "the last half layer is that of one row"


def test_families_differ_in_their_sums() -> None:
    """Command-R adds up a layer's halves at once; OLMo 2 sums squares of all heads besides."""
    for arch, in_a_token, in_a_prompt in (("command-r", 1, 1), ("olmo2", 3, 2)):
        config = replace(SHAPES["tiny"], arch=arch)
        one, many = exchanges_of(config, ["f32"], [1, 512], normed_quants=True)
        assert one.n == in_a_token * config.n_layers + 1
        assert many.n == in_a_prompt * config.n_layers - 1


def test_times_are_told_in_microseconds() -> None:
    first, second = read_spent("100.00 50.00 25.00\n2000.00 0.00 1000.00\n")
    assert (first.compute_ms, first.wait_ms, first.network_ms) == (0.1, 0.05, 0.025)
    assert first.lost_ms == pytest.approx(0.075) and second.lost_ms == 1.0


def test_the_program_is_told_six_numbers() -> None:
    words = raw_tcp_words(8192, 33, 64, read_bytes=1 << 20, looks=True)
    assert words == ["8192", "33", "64", "0", "1048576", "1"]
