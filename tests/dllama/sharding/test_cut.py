"""Cuts of all ranks put together are the model."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from dllama.config import FULL_ATTENTION, LayerAttention
from dllama.errors import ConfigError, ModelFileError
from dllama.models import FAMILIES, model_tensors
from dllama.models.tensors import Axis, Tensor
from dllama.qtypes import QType
from dllama.sharding.cut import cut_manifest, cut_tensors
from dllama.sharding.memory import (
    PROCESS_BYTES,
    WIRE_BYTES,
    NodeMemory,
    check_fits,
    kv_bytes,
    memory_needed,
)
from dllama.sharding.plan import Shard, plan_for, plan_shards
from tests.cluster.array_source import ArraySource, small_config

BY_COLUMNS = {"wo", "w2", "bq", "bk", "bv"}
WHOLE = {"norm", "norm1", "norm2", "q_norm", "k_norm"}


def axes(tensor: Tensor) -> list[Axis]:
    return [axis for axis in (tensor.rows, tensor.cols) if axis is not None]


@pytest.mark.parametrize("world_size", [1, 2, 3, 5])
@pytest.mark.parametrize("qtype", [QType.F32, QType.Q4_0])
def test_cuts_put_together_are_the_tensors(world_size: int, qtype: QType) -> None:
    config = small_config(
        arch="qwen3", dim=64, hidden_dim=256, head_dim=16, has_qkv_bias=True, has_qk_norm=True
    )
    table = model_tensors(config)
    source = ArraySource(config, qtype)
    shards = plan_for(config, source.tensors, [float(r + 1) for r in range(world_size)])
    pieces: dict[str, list[np.ndarray]] = {}
    for shard in shards:
        for info, array in cut_tensors(source, shard):
            assert array.shape == (info.rows, info.row_bytes)
            pieces.setdefault(info.name, []).append(array)
    assert pieces.keys() == source.tensors.keys() - {"embed"}
    for name, parts in pieces.items():
        short = name.rpartition(".")[2]
        whole = source.read(name)
        if short in WHOLE:
            assert all(s.part(a, config) is None for s in shards for a in axes(table[name]))
            assert all((p == whole).all() for p in parts)
        else:
            assert (np.concatenate(parts, axis=int(short in BY_COLUMNS)) == whole).all()


def test_tensors_come_in_feed_order_and_are_released_behind() -> None:
    config = small_config(arch="qwen3", has_qkv_bias=True, has_qk_norm=True)
    source = ArraySource(config)
    (shard,) = plan_shards(config, [1.0])
    names = [info.name for info, _ in cut_tensors(source, shard)]
    layer = [tensor.name for tensor in FAMILIES["qwen3"].layer_tensors(config, 0)]
    assert " ".join(layer) == "norm1 wq wk wv bq bk bv q_norm k_norm wo norm2 w1 w3 w2"
    expected = [f"layers.{i}.{n}" for i in range(config.n_layers) for n in layer]
    assert names == [*expected, "norm", "wcls"]
    assert source.released == names


def test_a_tied_head_is_cut_from_the_embedding() -> None:
    config = small_config(is_tied=True)
    source = ArraySource(config)
    shard = plan_shards(config, [1.0, 1.0])[1]
    *_, (info, array) = cut_tensors(source, shard)
    assert info.name == "wcls" and source.released[-1] == "embed"
    assert (array == source.read("embed", shard.vocab)).all()


def test_a_rank_without_heads_gets_no_attention() -> None:
    config = small_config(arch="qwen3", has_qk_norm=True)
    source = ArraySource(config)
    shard = plan_shards(config, [1.0] * 6)[-1]
    names = [c.info.name for c in cut_manifest(config, source.tensors, shard)]
    assert not len(shard.kv_heads)
    assert names[:5] == [f"layers.0.{n}" for n in ("norm1", "norm2", "w1", "w3", "w2")]


def test_a_cut_inside_a_block_takes_the_whole_block_along() -> None:
    """Heads 1 of 4 KV heads, 16 columns each: half a block of Q8_0."""
    config = small_config(dim=64, n_heads=8, n_kv_heads=4, head_dim=8)
    source = ArraySource(config, QType.Q8_0)
    shard = Shard(0, 2, range(1, 2), range(32), range(50))
    cuts = {c.info.name: c for c in cut_manifest(config, source.tensors, shard)}
    wo = cuts["layers.0.wo"]
    assert wo.cols == range(32) and (wo.info.cols, wo.info.own_cols) == (32, range(16, 32))


def test_a_missing_tensor_is_named() -> None:
    config = small_config()
    tensors = dict(ArraySource(config).tensors)
    del tensors["layers.1.w3"]
    with pytest.raises(ModelFileError, match=r"layers\.1\.w3"):
        cut_manifest(config, tensors, plan_shards(config, [1.0])[0])


@pytest.mark.parametrize(("name", "side"), [("w1", "rows"), ("wo", "cols")])
def test_a_tensor_smaller_than_the_header_says_is_refused(name: str, side: str) -> None:
    config = small_config()
    tensors = dict(ArraySource(config).tensors)
    info = tensors[f"layers.1.{name}"]
    tensors[info.name] = replace(info, **{side: getattr(info, side) - 1})
    for shard in plan_shards(config, [1.0, 1.0])[1:]:
        with pytest.raises(ModelFileError, match=rf"layers\.1\.{name} has .* own header"):
            cut_manifest(config, tensors, shard)


def test_the_largest_tensor_needs_room_twice() -> None:
    config = small_config()
    tensors = ArraySource(config).tensors
    for shard in plan_shards(config, [1.0, 1.0]):
        sizes = [cut.info.n_bytes for cut in cut_manifest(config, tensors, shard)]
        needed = memory_needed(config, tensors, shard, n_pages=7, max_step_tokens=1)
        assert needed == sum(sizes) + max(sizes) + WIRE_BYTES + PROCESS_BYTES


def test_columns_that_come_along_with_blocks_need_room_until_they_are_packed() -> None:
    """128 hidden columns either are half of one block or lie in two: as many are kept."""
    config = small_config(dim=256, hidden_dim=768, n_heads=8, n_kv_heads=4, head_dim=32)
    tensors = ArraySource(config, QType.Q4_K).tensors
    quants, scales = 128, 16  # bytes of a block of 256, for 8 runs of columns and for all of it
    kept, arriving = [], []
    for hidden in (range(128, 256), range(192, 320)):
        cuts = cut_manifest(config, tensors, Shard(0, 2, range(0), hidden, range(50)))
        [down] = [cut.info for cut in cuts if cut.info.name == "layers.0.w2"]
        kept.append(down.packed_bytes)
        arriving.append(down.n_bytes)
    assert kept == [256 * (quants // 2 + scales), 256 * (quants // 2 + 2 * scales)]
    assert arriving == [256 * 144, 256 * 288]


def test_types_that_grow_when_they_are_packed_need_what_they_become() -> None:
    """Of two types with blocks of 66 bytes, one takes 70 in memory; both arrive with 66."""
    config = small_config(dim=256, hidden_dim=512, n_heads=8, n_kv_heads=4, head_dim=32)
    found, tensors = [], ArraySource(config).tensors
    (shard,) = plan_shards(config, [1.0])
    for qtype in (QType.TQ2_0, QType.IQ2_XXS):
        typed = {n: replace(t, qtype=qtype) if t.rows > 1 else t for n, t in tensors.items()}
        found.append(memory_needed(config, typed, shard, n_pages=1, max_step_tokens=64))
        sizes = [t.n_bytes for name, t in typed.items() if t.rows > 1 and name != "embed"]
    assert found[1] - found[0] == sum(sizes) // 66 * 4


def test_memory_counts_weights_and_pages() -> None:
    config = small_config()
    source = ArraySource(config)
    (shard,) = plan_shards(config, [1.0])
    weights = sum(t.n_bytes for n, t in source.tensors.items() if n != "embed")
    few, many = (
        memory_needed(config, source.tensors, shard, n_pages=n, max_step_tokens=64)
        for n in (10_000, 10_100)  # more than a tensor on its way
    )
    assert few > weights
    # 2 layers, 32 tokens, 4 heads, float16: keys of 8, and values of 8 padded to a vector of 16
    page = 2 * 32 * 4 * 2 * (8 + 16)
    assert kv_bytes(config, len(shard.kv_heads), n_pages=9, max_step_tokens=64) == 9 * page
    assert many - few == 100 * page


def test_layers_with_a_window_have_pages_for_windows_alone() -> None:
    """One of two layers sees 40 tokens of 3,200: windows of at most four pages, for four sequences
    in each full context, and 64 rows."""
    layers = (LayerAttention(window=40), FULL_ATTENTION)
    config = small_config(max_seq_len=3200, attention_layers=layers)
    page = 32 * 4 * 2 * (8 + 16)
    for n_pages, n_windows in ((10, 10), (100, 18), (200, 34), (225, 38), (18, 10)):
        found = kv_bytes(config, 4, n_pages=n_pages, max_step_tokens=64)
        assert found == (n_pages + n_windows) * page, n_pages
    short = replace(config, max_seq_len=40)  # no row has more before it than it sees
    assert kv_bytes(short, 4, n_pages=100, max_step_tokens=64) == 2 * 100 * page


def test_what_does_not_fit_is_said_per_node_before_loading() -> None:
    root = NodeMemory("the root", "a", 4_000_000_000, 8_000_000_000)
    worker = NodeMemory("worker pi:9998", "b", 3_000_000_000, 2_000_000_000)
    with pytest.raises(ConfigError, match=r"pi:9998 needs 3\.00 GB and has 2\.00 GB"):
        check_fits([root, worker])
    check_fits([root])


def test_nodes_on_one_machine_share_its_memory() -> None:
    nodes = [NodeMemory(f"node {i}", "a", 3_000_000_000, 8_000_000_000) for i in range(3)]
    check_fits(nodes[:2])
    with pytest.raises(ConfigError, match=r"its machine needs 9\.00 GB"):
        check_fits(nodes)
