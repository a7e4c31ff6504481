"""The noise is Philox4x32-10, word for word, and fair."""

from __future__ import annotations

import numpy as np
import pytest

from dllama.engine.sampling.sampler import philox4x32, uniform

ONES = 0xFFFFFFFF


@pytest.mark.parametrize(
    ("counter", "key", "words"),
    [  # the known answers that Random123 publishes (tests/kat_vectors, "philox4x32 10")
        ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        ((ONES,) * 4, (ONES,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ],
)
def test_known_answers(
    counter: tuple[int, int, int, int], key: tuple[int, int], words: tuple[int, int, int, int]
) -> None:
    assert philox4x32(counter, key) == words


def test_uniform_takes_the_first_53_bits() -> None:
    high, low = 0x6627E8D5, 0xE169C58D
    assert uniform(0, 0) == ((high >> 5) * 2**26 + (low >> 6)) / 2**53


def test_seed_and_position_count_with_64_bits() -> None:
    drawn = [
        uniform(seed, position) for seed in (0, 1, 1 << 32, -1) for position in (0, 1, 1 << 32)
    ]
    assert len(set(drawn)) == len(drawn)
    assert uniform(-1, 5) == uniform((1 << 64) - 1, 5) == uniform((1 << 70) - 1, 5)


def test_streams_have_nothing_in_common() -> None:
    one = [uniform(3, position) for position in range(2000)]
    other = [uniform(3, position, 1) for position in range(2000)]
    assert not set(one) & set(other)
    assert abs(float(np.corrcoef(one, other)[0, 1])) < 0.08


def test_it_is_uniform_along_positions_and_along_seeds() -> None:
    for drawn in (
        [uniform(42, position) for position in range(8000)],
        [uniform(seed, 42) for seed in range(8000)],
    ):
        assert min(drawn) >= 0.0 and max(drawn) < 1.0
        counts = np.histogram(drawn, bins=20, range=(0.0, 1.0))[0]
        chi_square = float(((counts - 400.0) ** 2 / 400.0).sum())
        assert chi_square < 43.8  # 19 degrees of freedom, 99.9 %
