"""Chunks of a context, read by one thread or shared out: always the fold of the same states."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest

from kernels.attention.causal import scratch
from kernels.attention.kv_pages import PAGE, WORDS
from kernels.attention.tile import CHUNK
from kernels.team import Team
from tests.kernels.attention.read_pages import read_pages
from tests.kernels.attention.test_causal import Case, Sequences, oracle, random_rows, turned

CASES = [Case(1, 4, 64), Case(2, 1, 34), Case(1, 12, 16)]
LENGTHS = [511, 512, 513, 1025, 2048]


@contextmanager
def threads_for(sequences: Sequences, n: int) -> Iterator[None]:
    """Lets `n` threads compute, with scratch buffers of their own."""
    max_len = sequences.pages.shape[1] * PAGE
    with Team(n) as team:
        sequences.team = team.state
        sequences.buffers = scratch(n, sequences.case.head_dim, max_len)
        yield


def prefilled(kind: str, case: Case, x: np.ndarray) -> tuple[Sequences, np.ndarray]:
    """A sequence after its whole prompt, read by one thread, and all rows' results."""
    with Team(1) as team:
        sequences = Sequences(team.state, kind, case, 1, len(x))
        return sequences, sequences.run([(0, 0, x)])


@pytest.mark.parametrize("kind", list(WORDS))
@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("length", LENGTHS)
def test_any_number_of_threads_gives_the_same_bits(kind: str, case: Case, length: int) -> None:
    """And what a float64 oracle gives for what the pages hold, but for rounding."""
    x = random_rows(case, length)
    sequences, whole = prefilled(kind, case, x)
    for n in (1, 2, 3):
        with threads_for(sequences, n):
            row = sequences.run([(0, length - 1, x[-1:])])
            assert np.array_equal(row, whole[-1:]), f"{n} threads"
            is_shared = n > 1 and length > CHUNK * PAGE and case is not CASES[1]
            assert is_shared <= sequences.buffers.partials.any() <= (length > CHUNK * PAGE)
    keys, values = read_pages(sequences.kv, sequences.pages[0], length, case.head_dim)
    queries = turned(case, x)[0][-5:]
    np.testing.assert_allclose(whole[-5:], oracle(case, queries, keys[0], values[0]), atol=2e-5)


@pytest.mark.parametrize("kind", list(WORDS))
def test_prompts_in_chunks_across_a_border_equal_the_whole(kind: str) -> None:
    case = CASES[0]
    x = random_rows(case, 600)
    sequences, whole = prefilled(kind, case, x)
    for n in (1, 3):
        with threads_for(sequences, n):
            for first, end in ((0, 500), (500, 510), (510, 513), (513, 600), (511, 512), (0, 600)):
                part = sequences.run([(0, first, x[first:end])])
                assert np.array_equal(part, whole[first:end]), (n, first, end)


@pytest.mark.parametrize("kind", list(WORDS))
def test_long_and_short_sequences_share_a_step(kind: str) -> None:
    """Fewer tiles than threads have room for, with unlike numbers of chunks."""
    case, lengths = CASES[0], (1100, 40, 513)
    rows = [random_rows(case, n, seed) for seed, n in enumerate(lengths)]
    with Team(1) as team:
        sequences = Sequences(team.state, kind, case, 3, max(lengths))
        alone = [sequences.run([(s, 0, x)])[-1] for s, x in enumerate(rows)]
    with threads_for(sequences, 3):
        last = [(s, len(x) - 1, x[-1:]) for s, x in enumerate(rows)]
        assert np.array_equal(sequences.run(last), np.array(alone))
        assert sequences.buffers.partials.any()


def test_buffers_without_partials_serve_any_context() -> None:
    """Chunks are not shared out where their states have no room."""
    case = CASES[0]
    x = random_rows(case, 700)
    sequences, whole = prefilled("f16", case, x)
    with threads_for(sequences, 2):
        sequences.buffers = scratch(2, case.head_dim, 1)
        assert np.array_equal(sequences.run([(0, 699, x[-1:])]), whole[-1:])
