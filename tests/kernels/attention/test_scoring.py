"""Windows, soft caps, sinks and other scales: right, and the same bits in steps of any kind."""

from __future__ import annotations

import numpy as np
import pytest

from kernels.attention.causal import scratch
from kernels.attention.kv_pages import PAGE
from kernels.attention.tile import Scoring, scoring
from kernels.team import Team
from tests.kernels.attention.read_pages import read_pages
from tests.kernels.attention.test_causal import Case, Sequences, oracle, random_rows, turned

SINKS = np.array([0.5, -2.0, 6.0, 30.0, -40.0, 1.0, 0.0, 3.0], np.float32)
CASES = [Case(2, 4, 32), Case(1, 8, 16)]
KINDS = {
    "window": {"window": 70},
    "window of a page": {"window": PAGE},
    "its own token": {"window": 1},
    "long window": {"window": 600},
    "cap": {"cap": 2.0},
    "sinks": {"sinks": SINKS},
    "chunks of growing queries": {
        "window": 200,
        "is_chunked": True,
        "growth": np.array([1, 2, 0.5, 3], np.float32),
        "growth_length": 150,
        "growth_first": 1,
    },
    "all": {"window": 97, "cap": 5.0, "sinks": SINKS, "scale": 0.11},
}
CUTS = ((0, 700), (0, 5), (5, 6), (500, 513), (513, 514), (514, 700), (699, 700))


def prefilled(case: Case, how: Scoring, x: np.ndarray) -> tuple[Sequences, np.ndarray]:
    with Team(1) as team:
        sequences = Sequences(team.state, "f32", case, 1, len(x))
        sequences.scoring = how
        return sequences, sequences.run([(0, 0, x)])


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_rows_weigh_what_they_see_as_the_oracle_does(case: Case, kind: str) -> None:
    """However a context of more than a chunk is cut into steps, by any number of threads."""
    how, x = scoring(case.head_dim, **KINDS[kind]), random_rows(case, 700)
    sequences, whole = prefilled(case, how, x)
    keys, values = read_pages(sequences.kv, sequences.pages[0], len(x), case.head_dim)
    want = oracle(case, turned(case, x)[0], keys[0], values[0], how)
    np.testing.assert_allclose(whole, want, atol=2e-5)
    for n in (1, 3):
        with Team(n) as team:
            sequences.team = team.state
            sequences.buffers = scratch(n, case.head_dim, len(x))
            for first, end in CUTS:
                part = sequences.run([(0, first, x[first:end])])
                assert np.array_equal(part, whole[first:end]), (n, first, end)


def test_pages_before_a_window_are_not_read(team: np.ndarray) -> None:
    """They may be gone: what they hold, and which they are, changes nothing."""
    case = CASES[0]
    how, x = scoring(case.head_dim, window=70), random_rows(case, 700)
    sequences, whole = prefilled(case, how, x)
    sequences.team = team
    n_gone = (690 - 70 + 1) // PAGE
    for array in sequences.kv:
        array.view(np.float32)[:, sequences.pages[0, :n_gone]] = np.nan
    sequences.pages[0, :n_gone] = -1
    assert np.array_equal(sequences.run([(0, 690, x[690:])]), whole[690:])


def test_a_sink_takes_weight_and_adds_no_value(team: np.ndarray) -> None:
    case, x = CASES[0], random_rows(CASES[0], 3)
    how = scoring(case.head_dim, sinks=np.full(8, 80, np.float32))
    sequences = Sequences(team, "f32", case, 1, 3)
    plain = sequences.run([(0, 0, x)])
    sequences.scoring = how
    assert np.abs(sequences.run([(0, 0, x)])).max() < 1e-20 < np.abs(plain).max()
