"""Plain TCP as a peer: the figures of its steps are those of a token."""

from __future__ import annotations

from benchmarks.lan.exchanges import Spent
from benchmarks.peers.with_plain_tcp import figures


def test_figures_are_those_of_a_token() -> None:
    steps = [Spent(30.0, 4.0, 2.0), Spent(34.0, 8.0, 2.0)]
    assert figures(steps, 1) == {
        "tokens_per_s": 25.0, "compute_ms": 32.0, "wait_ms": 6.0, "network_ms": 2.0,
    }  # fmt: skip
    assert figures(steps, 8) == {
        "tokens_per_s": 200.0, "compute_ms": 4.0, "wait_ms": 0.75, "network_ms": 0.25,
    }  # fmt: skip
