from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from cluster.planning.work import ModelWork, Room, described_tensors
from dllama.config import Latent, LayerAttention
from dllama.qtypes import QType
from dllama.sharding.cut import cut_manifest
from dllama.step import PAGE_TOKENS
from tests.cluster.planning.clusters import llama_1b, work_of

SHARES = [[1.0], [1.0, 1.0], [3.0, 1.0], [2.0, 3.0, 1.0, 1.0]]


@pytest.mark.parametrize("shares", SHARES, ids=str)
@pytest.mark.parametrize("is_tied", [True, False])
def test_bytes_of_units_are_those_of_the_cut(shares: list[float], is_tied: bool) -> None:
    work = work_of(llama_1b(is_tied=is_tied))
    for shard in work.shards(shares):
        cuts = cut_manifest(work.config, work.tensors, shard)
        cut = sum(c.info.n_bytes for c in cuts if c.info.qtype is QType.Q4_0)
        found = (
            work.amounts["heads"][:, 0] * len(shard.kv_heads)
            + work.amounts["hidden"][:, 0] * len(shard.hidden)
            + work.amounts["vocab"][:, 0] * len(shard.vocab)
        )
        assert found.sum() == pytest.approx(cut, rel=1e-9)


@pytest.mark.parametrize("shares", SHARES, ids=str)
def test_dense_layers_of_a_mixture_are_cut_like_its_experts(shares: list[float]) -> None:
    config = llama_1b(
        arch="glm4moe", hidden_dim=512, n_experts=8, n_active_experts=2, shared_hidden_dim=512,
        has_shared_gate=False, n_dense_layers=3, dense_hidden_dim=4096 + 512,
    )  # fmt: skip
    work = work_of(config)
    at = 0
    for shard in work.shards(shares):
        cuts = cut_manifest(work.config, work.tensors, shard)
        cut = sum(c.info.n_bytes for c in cuts if c.info.name.endswith((".w1", ".w2", ".w3")))
        assert work.amounts["dense"][:, 0].sum() * len(shard.dense) == pytest.approx(cut, rel=1e-9)
        assert shard.dense.start == at
        share = len(shard.hidden) / config.hidden_dim
        assert len(shard.dense) / config.dense_hidden_dim == pytest.approx(share, abs=0.03)
        assert work.memory_about(shard) == pytest.approx(work.memory(shard), rel=0.02)
        at = shard.dense.stop
    assert at == config.dense_hidden_dim


@pytest.mark.parametrize("shares", SHARES, ids=str)
def test_experts_are_work_in_proportion_where_blocks_are_cut(shares: list[float]) -> None:
    """Experts of three blocks of Q4_K: a node keeps more than its columns of the scales alone, a
    ninth of each block that is cut, in one of three matrices."""
    config = llama_1b(arch="qwen3moe", hidden_dim=768, n_experts=8, n_active_experts=2)
    work = work_of(config, QType.Q4_K)
    for shard in work.shards(shares):
        cuts = cut_manifest(config, work.tensors, shard)
        kept = sum(c.info.packed_bytes for c in cuts if ".expert_" in c.info.name)
        found = work.amounts["experts"][:, 0].sum() * len(shard.hidden)
        [down] = [c.info for c in cuts if c.info.name == "layers.0.expert_w2"]
        n_more = down.cols / 256 - len(shard.hidden) / 256  # blocks' worth of scales, of a row
        assert kept - found == pytest.approx(config.n_layers * down.rows * 16 * n_more)
        assert found <= kept < 1.1 * found
        assert work.memory_about(shard) == pytest.approx(work.memory(shard), rel=0.03)


@pytest.mark.parametrize("shares", SHARES, ids=str)
def test_rows_of_latent_attention_are_on_every_node(shares: list[float]) -> None:
    """A node reads them once for all its heads; what heads read in common is counted as whole."""
    config = llama_1b(
        arch="deepseek2", hidden_dim=512, n_experts=8, n_active_experts=2, n_heads=16,
        n_kv_heads=16, head_dim=192, partial_rotary_dim=64,
        latent=Latent(kv_rank=512, rope_dim=64, nope_dim=128, value_dim=128),
    )  # fmt: skip
    work = work_of(config)
    assert work.token_bytes(0) == 0 and work.token_bytes(1) == 16 * 2 * 576
    for shard in work.shards(shares):
        cuts = cut_manifest(work.config, work.tensors, shard)
        names = (".wq", ".wk_b", ".wv_b", ".wo")
        cut = sum(c.info.n_bytes for c in cuts if c.info.name.endswith(names))
        found = work.amounts["heads"][:, 0].sum() * len(shard.kv_heads)
        assert found == pytest.approx(cut, rel=1e-9)
        assert work.kv_bytes(shard) == work.room.n_pages * PAGE_TOKENS * work.token_bytes(1)
        assert work.memory_about(shard) == pytest.approx(work.memory(shard), rel=0.05)


def test_all_units_are_the_whole_model() -> None:
    work = work_of()
    config = work.config
    values = (
        config.n_layers
        * config.dim
        * (2 * config.q_dim + 2 * config.kv_dim + 3 * config.hidden_dim)
        + config.vocab_size * config.dim
    )
    assert work.weight_bytes() == values // 32 * 18
    sizes = {"heads": config.n_kv_heads, "hidden": config.hidden_dim, "vocab": config.vocab_size}
    assert sum(work.amounts[p][0, 1] * n for p, n in sizes.items()) == pytest.approx(values)


@pytest.mark.parametrize("shares", SHARES, ids=str)
def test_memory_is_nearly_linear(shares: list[float]) -> None:
    work = work_of()
    for shard in work.shards(shares):
        assert work.memory_about(shard) == pytest.approx(work.memory(shard), rel=0.02)


def test_types_are_counted_apart() -> None:
    work = work_of()
    mixed = dict(work.tensors)
    for name, info in mixed.items():
        if name.endswith("w2"):
            mixed[name] = type(info)(name, QType.Q6_K, info.rows, info.cols)
    found = type(work)(work.config, mixed, work.room)
    assert found.types == [QType.Q4_0, QType.Q6_K]
    values = found.amounts["hidden"][:, 1] * work.config.hidden_dim
    np.testing.assert_allclose(values[0], 2 * values[1])


def test_a_token_reads_its_experts_only() -> None:
    """And a step of many rows all of them, but multiplies each row with its own."""
    config = replace(
        work_of().config, arch="qwen3moe", hidden_dim=1024, n_experts=16, n_active_experts=2,
        is_tied=False,
    )  # fmt: skip
    tensors = described_tensors(config, QType.Q4_0)
    work = ModelWork(config, tensors, work_of().room)
    of_experts = [info for info in tensors.values() if info.n_experts == 16]
    n_bytes = sum(info.n_bytes for info in of_experts)
    values = sum(info.rows * info.cols for info in of_experts)
    for n_rows, read in ((1, 2), (3, 6), (8, 16), (500, 16)):
        found = work.read("experts", n_rows).sum(axis=0) * config.hidden_dim
        np.testing.assert_allclose(found, [n_bytes * read / 16, values * 2 / 16])
    rest = sum(
        info.n_bytes
        for name, info in tensors.items()
        if info.n_experts == 1 and name != "embed" and "norm" not in name
    )
    assert work.weight_bytes() == pytest.approx(rest + n_bytes * 2 / 16)
    for shares in ([1.0, 1.0], [3.0, 2.0, 1.0]):
        for shard in work.shards(shares):
            assert work.memory_about(shard) == pytest.approx(work.memory(shard), rel=0.02)


@pytest.mark.parametrize(("n_rows", "depth"), [(1, 0), (1, 100), (1, 39), (30, 20), (8, 300)])
def test_layers_with_a_window_see_no_more_than_it(n_rows: int, depth: int) -> None:
    layers = (LayerAttention(window=40), LayerAttention())
    config = replace(llama_1b(), n_layers=2, attention_layers=layers)
    work = ModelWork(config, described_tensors(config, QType.Q8_0), Room(1, 1))
    rows = range(depth, depth + n_rows)
    seen = [[range(max(0, row + 1 - window), row + 1) for row in rows] for window in (40, 10**6)]
    n_read = [len(set().union(*layer)) for layer in seen]
    n_pairs = [sum(map(len, layer)) for layer in seen]
    assert work.attended(n_rows, depth) == (sum(n_read) / 2, sum(n_pairs) / 2)
