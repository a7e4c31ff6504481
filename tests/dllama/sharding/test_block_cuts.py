"""Blocks of 256 columns that two ranks share: n ranks compute what one computes, and keep nothing
of another rank's columns."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from cluster.thread_collective import ThreadCollective, ThreadGroup
from dllama.collective import Addend, Collective, ImmediateSums, SoloCollective
from dllama.config import ModelConfig
from dllama.errors import ModelFileError
from dllama.qtypes import BLOCK, QType
from dllama.runtime.weights import build_weights
from dllama.sharding.cut import cut_manifest, cut_tensors
from dllama.sharding.plan import plan_for
from dllama.sharding.units import units_of
from dllama.weight_source import TensorFeed, TensorInfo
from kernels.matmul.sums import Kind
from kernels.team import Team
from tests.cluster.array_source import ArraySource, small_config
from tests.cluster.steps import prefill
from tests.kernels.weights.random_weights import weights
from tests.local_model import load_rank

TOKENS = [3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5]
WIDE_TYPES = [QType.Q2_K, QType.Q3_K, QType.Q4_K, QType.Q5_K, QType.Q6_K, QType.IQ4_XS]
SHAPES = {
    "8 KV heads of 64 columns": {"n_heads": 16, "n_kv_heads": 8, "head_dim": 32},
    "2 KV heads of 384 columns": {"n_heads": 12, "n_kv_heads": 2, "head_dim": 64},
    "16 KV heads of 16 columns": {"n_heads": 32, "n_kv_heads": 16, "head_dim": 8},
}


def shape(name: str, n_layers: int = 1) -> ModelConfig:
    return small_config(dim=256, hidden_dim=768, n_layers=n_layers, **SHAPES[name])


class BlockSource(ArraySource):
    """Random blocks with sane scales. `types` are the layers' types, `empty` tensors are zeros, all
    weights of norms are `norm`."""

    def __init__(
        self, config: ModelConfig, types: list[QType], empty: str = "", norm: float = 1.0
    ) -> None:
        super().__init__(config, types[0])
        for name, info in self._tensors.items():
            if info.rows == 1:
                self._arrays[name] = np.full((1, info.cols), norm, np.float32).view(np.uint8)
                continue
            layer = name.split(".")[1] if name.startswith("layers.") else "0"
            kind = types[int(layer)]
            raw, _ = weights(
                kind.name.lower(), info.rows, info.cols, seed=len(name) + ord(name[-1])
            )
            self._tensors[name] = TensorInfo(name, kind, info.rows, info.cols)
            self._arrays[name] = np.zeros_like(raw) if name.endswith(empty or " ") else raw


class Recorded(ImmediateSums):
    """A Collective that keeps a copy of every sum."""

    def __init__(self, inner: Collective) -> None:
        self._inner = inner
        self.sums: list[np.ndarray] = []

    def all_reduce(self, x: Addend, out: np.ndarray) -> None:
        self._inner.all_reduce(x, out)
        self.sums.append(out.copy())

    def gather(self, part: bytes) -> list[bytes] | None:
        return self._inner.gather(part)


def sums_of(source: BlockSource, n_ranks: int) -> list[np.ndarray]:
    """What the all-reduces of a prompt gave on rank 0, two a layer."""
    shards = plan_for(source.config, source.tensors, [1.0] * n_ranks)
    ranks = [load_rank(source, shard, n_pages=4) for shard in shards]
    group = ThreadGroup(n_ranks)
    comms: list[Recorded] = [Recorded(ThreadCollective(group, r)) for r in range(n_ranks)]
    if n_ranks == 1:
        comms = [Recorded(SoloCollective())]
    rows = source.read("embed")[TOKENS]

    def forward(rank: int) -> None:
        try:
            ranks[rank].forward(prefill(TOKENS), rows, comms[rank])
        except BaseException:
            group.leave()
            raise

    with ThreadPoolExecutor(n_ranks) as pool:
        list(pool.map(forward, range(n_ranks)))
    for rank in ranks:
        rank.close()
    return comms[0].sums


def assert_equal(got: np.ndarray, want: np.ndarray) -> None:
    assert np.array_equal(got, want) and np.abs(want).max() > 0


@pytest.mark.parametrize("qtype", WIDE_TYPES, ids=lambda t: t.name)
def test_attention_and_feed_forward_of_n_ranks_are_those_of_one(qtype: QType) -> None:
    """Each with the very same input: without attention's part, the feed-forward's is the same."""
    config = shape("8 KV heads of 64 columns")
    whole, no_attention = (BlockSource(config, [qtype], empty, norm=0.01) for empty in ("", "wo"))
    mixed, hidden = sums_of(whole, 1)[0], sums_of(no_attention, 1)[1]
    for n_ranks in (2, 3, 5):
        assert_equal(sums_of(whole, n_ranks)[0], mixed)
        assert_equal(sums_of(no_attention, n_ranks)[1], hidden)


@pytest.mark.parametrize("name", list(SHAPES)[1:])
def test_awkward_heads_are_cut_too(name: str) -> None:
    source = BlockSource(shape(name), [QType.Q4_K], norm=0.01)
    expected = sums_of(source, 1)[0]
    for n_ranks in (2, 3, 5):
        assert_equal(sums_of(source, n_ranks)[0], expected)


@pytest.mark.parametrize("other", [QType.Q8_0, QType.F16], ids=lambda t: t.name)
def test_layers_may_differ_in_type(other: QType) -> None:
    config = shape("8 KV heads of 64 columns", n_layers=2)
    source = BlockSource(config, [other, QType.Q6_K], norm=0.01)
    for got, want in zip(sums_of(source, 3), sums_of(source, 1), strict=True):
        assert_equal(got, want)


@pytest.mark.parametrize("n_ranks", [1, 2, 3, 5, 8])
@pytest.mark.parametrize("name", SHAPES)
def test_plans_are_those_of_small_blocks(name: str, n_ranks: int) -> None:
    """Heads and vocabulary as for Q4_0, hidden columns at the same borders or at better ones."""
    config, shares = shape(name), [1.0 + r % 2 for r in range(n_ranks)]
    plain, wide = (
        plan_for(config, ArraySource(config, t).tensors, shares) for t in (QType.Q4_0, QType.Q4_K)
    )
    assert [s.kv_heads for s in wide] == [s.kv_heads for s in plain]
    assert [s.vocab for s in wide] == [s.vocab for s in plain]
    assert [s.hidden for s in wide] == [s.hidden for s in plain]


@pytest.mark.parametrize("qtype", [QType.Q4_0, QType.Q4_K])
def test_cuts_hold_the_blocks_of_their_columns_and_no_more(qtype: QType) -> None:
    config = shape("8 KV heads of 64 columns")
    source = BlockSource(config, [qtype])
    block = BLOCK[qtype].values
    ends: dict[str, list[int]] = {"wo": [0], "w2": [0]}
    for shard in plan_for(config, source.tensors, [1.0, 1.0, 1.0]):
        own = {"wo": len(shard.kv_heads) * 64, "w2": len(shard.hidden)}
        cuts = cut_manifest(config, source.tensors, shard)
        for cut, (info, raw) in zip(cuts, cut_tensors(source, shard), strict=True):
            name = info.name.rpartition(".")[2]
            assert cut.info == info and raw.nbytes == info.n_bytes
            if name not in own:
                assert info.own_cols == range(info.cols)
                continue
            start = cut.cols.start if cut.cols else 0
            assert start + info.own_cols.start == ends[name][-1]
            ends[name].append(ends[name][-1] + own[name])
            assert len(info.own_cols) == own[name]
            assert info.own_cols.start < block and info.cols - info.own_cols.stop < block
    assert ends["wo"][-1] == config.q_dim and ends["w2"][-1] == config.hidden_dim
    assert all(a < b for e in ends.values() for a, b in pairwise(e))


@pytest.mark.parametrize("n_ranks", [2, 3, 5])
def test_ranks_hold_their_share_and_no_more(n_ranks: int) -> None:
    """Of a block that is cut they hold each column once, and its scales as often as there are
    parts; memory needs count just that."""
    config = shape("8 KV heads of 64 columns")
    source = BlockSource(config, [QType.Q4_K])
    units = units_of(config, source.tensors)
    held = n_blocks = 0
    for shard in plan_for(config, source.tensors, [1.0] * n_ranks):
        infos = [cut.info for cut in cut_manifest(config, source.tensors, shard)]
        with Team(1) as team:
            feed = cut_tensors(source, shard)
            layer = build_weights(config, feed, team.state, 0, units, Kind.FIXED).layers[0]
        for info in infos:
            if info.short_name in ("wo", "w2"):
                assert layer.matrices[info.short_name].n_bytes == info.packed_bytes
                held += info.packed_bytes
                n_blocks += info.cols // 256
    whole = config.dim * (config.q_dim + config.hidden_dim) // 256 * 144
    n_more = n_blocks - (config.q_dim + config.hidden_dim) // 256
    assert n_more > 0 and held == whole + n_more * config.dim * 16


def test_an_input_that_would_reach_beyond_its_buffer_is_refused() -> None:
    """As from a root that announces nonsense: nothing may be written past the end."""
    config = shape("8 KV heads of 64 columns", n_layers=2)
    source = BlockSource(config, [QType.Q4_K, QType.Q4_K])
    shard = plan_for(config, source.tensors, [1.0] * 3)[1]
    honest = list(cut_tensors(source, shard))
    for wrong in ("layers.0.wo", "layers.0.w2", "layers.1.wo", "layers.1.w2"):
        tensors = [
            (replace(info, first_own_col=info.cols - 1) if info.name == wrong else info, raw)
            for info, raw in honest
        ]
        match = rf"{wrong} has \d+ columns, of which this node"
        with Team(1) as team, pytest.raises(ModelFileError, match=match):
            feed = TensorFeed([info for info, _ in tensors], tensors)
            build_weights(config, feed, team.state, 0, units_of(config, source.tensors), Kind.FIXED)
