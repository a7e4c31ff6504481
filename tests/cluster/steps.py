"""Steps for tests of the cluster."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np
import pytest

from cluster.root.runner import ClusterRunner
from dllama.errors import PeerLost
from dllama.runner import Runner
from dllama.step import PAGE_TOKENS, LogitRow, Step


def prefill(tokens: Sequence[int], *, start: int = 0, candidates: int = 0) -> Step:
    """One sequence in the first pages, whose last row of logits is wanted."""
    ids = np.array(tokens, np.int32)
    n_pages = -(-(start + len(ids)) // PAGE_TOKENS)
    return Step(
        tokens=ids,
        positions=np.arange(start, start + len(ids), dtype=np.int32),
        starts=np.array([0, len(ids)], np.int32),
        pages=np.arange(n_pages, dtype=np.int32)[None, :],
        logits_at=np.array([len(ids) - 1], np.int32),
        candidates=np.array([candidates], np.int32),
    )


def logits(runner: ClusterRunner, tokens: Sequence[int]) -> np.ndarray:
    (row,) = runner.run(prefill(tokens))
    assert isinstance(row, LogitRow)
    return row.logits


def recover(runner: Runner, timeout_s: float = 40.0) -> None:
    """As an engine does: again and again until it works."""
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            return runner.recover()
        except PeerLost:
            if time.monotonic() > deadline:
                pytest.fail("the cluster did not come back")


def idle_until_lost(runner: ClusterRunner, timeout_s: float = 40.0) -> PeerLost:
    """Idles as an engine does, until the error comes."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        try:
            runner.idle()
        except PeerLost as lost:
            return lost
        time.sleep(0.02)
    pytest.fail("nobody noticed")
