"""The short form of the fuzzer; `python -m tests.cluster.fuzz` is the long one."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from tests.cluster.fuzz.decoders import DECODERS
from tests.cluster.fuzz.table import decode, failures, quiet, run
from tests.leaks import no_leaks

__all__ = ["no_leaks"]

N_FRAMES = 20_000


@pytest.mark.timeout(500)
@pytest.mark.usefixtures("no_leaks")
def test_no_socket_and_no_decoder_crashes_hangs_or_grows() -> None:
    with quiet():
        rows = list(run(N_FRAMES, seed=11, limit_s=4.0))
    assert not failures(rows), rows
    assert len({row.socket for row in rows}) == len(rows) > len(DECODERS) + 6


def test_a_decoder_that_fails_is_a_row_that_says_so() -> None:
    def failing(rng: random.Random) -> Iterator[None]:
        yield
        yield
        raise IndexError("out of range")

    row = decode("failing", failing, 5, random.Random(1))
    assert row.n_crashes == 1 and failures([row]) == [
        "decoder, failing: 1 crashes, 0 hangs; IndexError: out of range"
    ]
