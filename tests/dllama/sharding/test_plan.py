"""Plans cover a model exactly once, in order, at block borders, and weigh bytes by shares."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dllama.config import ModelConfig
from dllama.errors import ShardError
from dllama.qtypes import QType
from dllama.sharding.cut import cut_manifest
from dllama.sharding.plan import Shard, apportion, plan_for, plan_shards
from tests.cluster.array_source import ArraySource, small_config

LLAMA_1B = {
    "dim": 2048, "hidden_dim": 8192, "n_layers": 16, "n_heads": 32, "n_kv_heads": 8,
    "head_dim": 64, "vocab_size": 128256, "is_tied": True,
}  # fmt: skip


def assert_covers(parts: Sequence[range], end: int) -> None:
    assert parts[0].start == 0 and parts[-1].stop == end
    for left, right in pairwise(parts):
        assert left.stop == right.start
    assert all(p.step == 1 and p.start <= p.stop for p in parts)


def plan_bytes(config: ModelConfig, shard: Shard) -> int:
    source = ArraySource(config)
    return sum(c.info.n_bytes for c in cut_manifest(config, source.tensors, shard))


@given(
    shares=st.lists(st.floats(0.1, 10), min_size=1, max_size=9),
    n_kv_heads=st.integers(1, 9),
    group_size=st.sampled_from([1, 2, 3, 4]),
    hidden_blocks=st.integers(9, 60),
    align=st.sampled_from([1, 4, 32, 256]),
    vocab_size=st.integers(9, 2000),
)
def test_ranges_cover_exactly_once_in_order_and_aligned(
    shares: list[float],
    n_kv_heads: int,
    group_size: int,
    hidden_blocks: int,
    align: int,
    vocab_size: int,
) -> None:
    config = small_config(
        n_kv_heads=n_kv_heads,
        n_heads=n_kv_heads * group_size,
        hidden_dim=hidden_blocks * align,
        vocab_size=vocab_size,
    )
    shards = plan_shards(config, shares, hidden_align=align)
    assert [(s.rank, s.world_size) for s in shards] == [
        (r, len(shares)) for r in range(len(shares))
    ]
    assert_covers([s.kv_heads for s in shards], n_kv_heads)
    assert_covers([s.hidden for s in shards], config.hidden_dim)
    assert_covers([s.vocab for s in shards], vocab_size)
    assert all(len(s.hidden) and len(s.vocab) for s in shards)
    assert all(s.hidden.start % min(align, 32) == 0 for s in shards)
    if vocab_size > 256:
        assert all(s.vocab.start % 16 == 0 for s in shards)


@given(
    shares=st.lists(st.floats(0.3, 3), min_size=2, max_size=6),
    n_kv_heads=st.sampled_from([2, 4, 8]),
)
def test_bytes_follow_the_shares(shares: list[float], n_kv_heads: int) -> None:
    """Hidden columns make up for heads, unless a rank's heads alone are more than its share."""
    config = small_config(
        dim=64, hidden_dim=1024, n_layers=1, n_heads=8, n_kv_heads=n_kv_heads, vocab_size=64
    )
    shards = plan_shards(config, shares)
    sizes = [plan_bytes(config, s) for s in shards]
    for size, share in zip(sizes, shares, strict=True):
        assert size / sum(sizes) == pytest.approx(share / sum(shares), abs=0.06)


def test_equal_ranks_of_a_real_shape_differ_by_one_unit_of_columns() -> None:
    config = small_config(**LLAMA_1B)
    for world_size in (2, 3, 5, 8, 11):
        shards = plan_shards(config, [1.0] * world_size, hidden_align=32)
        sizes = [
            len(s.kv_heads) * 10 * 64 * 2048 * 16
            + len(s.hidden) * 3 * 2048 * 16
            + len(s.vocab) * 2048
            for s in shards
        ]
        assert max(sizes) - min(sizes) <= (256 * 3 * 16 + 512) * 2048


def test_nodes_may_outnumber_kv_heads() -> None:
    shards = plan_shards(small_config(n_kv_heads=2), [1.0] * 5)
    assert [len(s.kv_heads) for s in shards] == [1, 1, 0, 0, 0]
    assert min(len(s.hidden) for s in shards[2:]) > max(len(s.hidden) for s in shards[:2])


def test_a_hidden_size_that_is_no_multiple_of_32_is_cut_at_4() -> None:
    shards = plan_shards(small_config(hidden_dim=172), [1.0, 1.0, 1.0])
    assert all(s.hidden.start % 4 == 0 for s in shards)
    assert_covers([s.hidden for s in shards], 172)


def test_large_blocks_stay_whole_where_there_are_many_and_are_shared_where_not() -> None:
    config = small_config(**LLAMA_1B)
    for world_size in (8, 3, 11):
        shards = plan_shards(config, [1.0] * world_size, hidden_align=256, head_align=256)
        assert all(s.hidden.start % 256 == 0 for s in shards)
    config = small_config(hidden_dim=512)
    shards = plan_shards(config, [1.0] * 5, hidden_align=256)
    assert all(len(s.hidden) and s.hidden.start % 32 == 0 for s in shards)


def test_too_many_nodes_is_said_with_numbers() -> None:
    with pytest.raises(ShardError, match=r"0 of 64 hidden columns.*use at most 2 nodes") as error:
        plan_shards(small_config(hidden_dim=64), [1.0] * 3, hidden_align=32)
    assert (error.value.rank, error.value.world_size) == (2, 3)
    with pytest.raises(ShardError, match="vocabulary rows"):
        plan_shards(small_config(vocab_size=2), [1.0] * 3)


@pytest.mark.parametrize("shares", [[], [1, 0], [1, -2], [float("nan")], [1, float("inf")]])
def test_shares_must_be_positive_numbers(shares: list[float]) -> None:
    with pytest.raises(ShardError, match="positive"):
        plan_shards(small_config(), shares)


def test_head_groups_that_end_inside_a_block_are_bundled() -> None:
    """8 heads of 8 over 4 KV heads: a group is 16 columns of wo, half a block of Q8_0."""
    config = small_config(dim=64, n_heads=8, n_kv_heads=4, head_dim=8)
    source = ArraySource(config, QType.Q8_0)
    shards = plan_for(config, source.tensors, [1.0, 1.0, 1.0])
    assert [len(s.kv_heads) for s in shards] == [2, 2, 0]
    for shard in shards:
        cut_manifest(config, source.tensors, shard)


@given(st.lists(st.floats(0.01, 100), min_size=1, max_size=12), st.integers(12, 500))
def test_apportion_is_within_one_of_the_quota(weights: list[float], n_units: int) -> None:
    counts = apportion(n_units, weights, minimum=0)
    assert sum(counts) == n_units
    for count, weight in zip(counts, weights, strict=True):
        assert abs(count - n_units * weight / sum(weights)) < 1 + 1e-6
