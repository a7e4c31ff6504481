"""Units depend on the model alone, divide what they cut, and leave enough parts for even shares."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dllama.sharding.units import hidden_unit, sum_units, vocab_unit
from tests.cluster.array_source import small_config


@given(st.integers(1, 1000), st.sampled_from([1, 2, 32, 256]))
def test_hidden_units_are_whole_activation_blocks_and_many(n_blocks: int, align: int) -> None:
    hidden_dim = n_blocks * align
    unit = hidden_unit(hidden_dim, align)
    assert hidden_dim % unit == 0 and unit % min(align, 32) == 0
    assert hidden_dim // unit >= 32 or unit == min(align, 32)


@pytest.mark.parametrize(
    ("hidden_dim", "unit"),
    [(8192, 256), (14336, 256), (28672, 512), (5632, 128), (4864, 128), (1024, 32), (512, 32)],
)
def test_units_of_real_shapes(hidden_dim: int, unit: int) -> None:
    assert hidden_unit(hidden_dim, 32) == unit


@given(st.integers(1, 1 << 20))
def test_a_vocabulary_has_at_most_256_units_of_whole_groups(vocab_size: int) -> None:
    unit = vocab_unit(vocab_size)
    assert -(-vocab_size // unit) <= 256 and (unit == 1 or unit % 16 == 0)


def test_heads_are_bundled_to_whole_activation_blocks() -> None:
    config = small_config(n_heads=8, n_kv_heads=8, head_dim=8)
    assert sum_units(config).heads == 8
    assert sum_units(config, head_align=32).heads == sum_units(config, head_align=256).heads == 32
