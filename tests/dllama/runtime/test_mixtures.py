"""Mixtures of experts: no result depends on the batch, the chunk, the nodes or the replay."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.random_model import SHAPES, write_random
from cluster.thread_collective import ThreadCollective, ThreadGroup
from dllama.config import FULL_ATTENTION, LayerAttention
from dllama.qtypes import QType
from kernels.gates import Gate
from tests.dllama.runtime.same_logits import (
    batches_equal_singles,
    chunks_equal_the_whole,
    replays_change_nothing,
)
from tests.dllama.runtime.test_exact import bits
from tests.local_model import Ranks, make_step
from tests.toy_models import MIXTRAL, write_toy

TOKENS = [int(t) for t in np.random.default_rng(0).integers(0, 352, 120)]
MODELS: dict[str, dict[str, object]] = {
    "qwen3moe": {"arch": "qwen3moe", "qtype": QType.Q4_0},
    "qwen2moe": {"arch": "qwen2moe", "qtype": QType.Q8_0},
    "mixtral": {"qtype": QType.F32, **MIXTRAL},
    "glm4moe": {"arch": "glm4moe", "qtype": QType.Q8_0},
    "deepseek2": {"arch": "deepseek2", "qtype": QType.Q8_0},
}
LARGE_BLOCKS = replace(
    SHAPES["tiny"], n_layers=2, hidden_dim=256, vocab_size=352, max_seq_len=256, n_experts=2,
    n_active_experts=2,
)  # fmt: skip
"""256 columns are one block, which the ranks share. 120 rows are many for each of two experts."""
GPT_OSS = replace(
    SHAPES["tiny"], arch="gpt-oss", n_layers=2, dim=96, hidden_dim=96, vocab_size=352,
    max_seq_len=256, n_experts=6, n_active_experts=2, has_expert_norm=True, gate=Gate.CLAMPED,
    has_qkv_bias=True, attention_layers=(LayerAttention(window=40), FULL_ATTENTION),
)  # fmt: skip
THREE_BLOCKS = replace(LARGE_BLOCKS, hidden_dim=768)
CUT_INSIDE = {
    "few-rows-each": replace(THREE_BLOCKS, n_experts=6),
    "many-rows-each": THREE_BLOCKS,
    "gpt-oss": replace(GPT_OSS, dim=256, hidden_dim=768, n_experts=4),
}
RANDOM = {"in-large-blocks": (LARGE_BLOCKS, QType.Q4_K), "gpt-oss": (GPT_OSS, QType.MXFP4)}


@pytest.fixture(params=[*MODELS, *RANDOM])
def model(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    path = tmp_path / "toy.gguf"
    if request.param in RANDOM:
        write_random(path, *RANDOM[request.param])
        return path
    sizes = {"n_kv_heads": 4, "hidden_dim": 96} | MODELS[request.param]
    return write_toy(path, **sizes)  # type: ignore[arg-type]


def test_chunks_and_tokens_equal_the_whole(model: Path) -> None:
    chunks_equal_the_whole(model, TOKENS, ([0, 1, 9, 60, 120], range(121)))


def test_a_batch_equals_singles(model: Path) -> None:
    batches_equal_singles(model, TOKENS)


@pytest.mark.parametrize("shares", [[1.0, 1.0], [1.0, 5.0, 2.0]], ids=str)
def test_many_nodes_equal_one(model: Path, shares: list[float]) -> None:
    assert bits(model, shares) == bits(model, [1.0])


@pytest.mark.parametrize("qtype", [QType.Q4_K, QType.Q6_K, QType.IQ4_XS], ids=lambda t: t.name)
@pytest.mark.parametrize("name", CUT_INSIDE)
def test_experts_of_three_blocks_are_cut_inside_of_them(
    tmp_path: Path, name: str, qtype: QType
) -> None:
    """As those of Qwen3-30B-A3B: 768 columns of 256 a block, on nodes that are no divisor of 3."""
    path = tmp_path / "toy.gguf"
    write_random(path, CUT_INSIDE[name], qtype)
    whole = bits(path, [1.0])
    for shares in ([1.0] * 2, [1.0] * 3, [1.0] * 4, [1.0, 5.0, 2.0]):
        assert bits(path, shares) == whole


def test_each_rank_computes_its_columns_of_an_expert_and_no_more(tmp_path: Path) -> None:
    """An expert of three blocks on two ranks, half of the middle one each, in both products."""
    path = tmp_path / "toy.gguf"
    write_random(path, THREE_BLOCKS, QType.Q4_K)
    group = ThreadGroup(2)
    ranks = Ranks(path, [1.0] * 2, [ThreadCollective(group, rank) for rank in range(2)])
    dim, n_experts = THREE_BLOCKS.dim, THREE_BLOCKS.n_experts
    for model in ranks.models:
        [gate_up, *_], [down, *_] = map(model.weights.linears, ("expert_gate_up", "expert_w2"))
        assert gate_up.out_dim == 2 * 384 and down.cols == 384
        [(_, packed)] = down.parts
        assert packed.quants.size == n_experts * dim * 384 // 2
        assert packed.scales.size == n_experts * dim * 2 * 16  # of the middle block too
    ranks.close()


@pytest.mark.parametrize("shares", [[1.0], [1.0, 2.0]], ids=str)
def test_replays_change_nothing(model: Path, shares: list[float]) -> None:
    """Rows of a step that is replayed take other experts than those of the captured one."""
    replays_change_nothing(model, shares)


@pytest.mark.parametrize("token", [5, 90])
def test_rows_that_all_take_the_same_experts_are_equal_work_for_all_ranks(
    tmp_path: Path, token: int
) -> None:
    """A prompt of one token, again and again: two of eight experts have all rows, and each of two
    ranks half of their columns."""
    sizes = {"n_experts": 8, "n_active_experts": 2, "has_expert_norm": True}
    path = write_toy(tmp_path / "toy.gguf", hidden_dim=96, **sizes)  # type: ignore[arg-type]
    group = ThreadGroup(2)
    ranks = Ranks(path, [1.0] * 2, [ThreadCollective(group, rank) for rank in range(2)])
    ranks.run(make_step([(0, [token] * 60, 0)], every_row=True))
    work = []
    for model in ranks.models:
        gate_up, state = model.weights.layers[-1].matrix("expert_gate_up"), model.state.experts
        assert gate_up is not None and state is not None
        rows = np.bincount(state.routes.chosen[:60].ravel(), minlength=8)
        assert sorted(rows)[-2:] == [60, 60]
        work.append((rows * (gate_up.out_dim // 2)).tolist())
    ranks.close()
    assert work[0] == work[1] and max(work[0]) == 60 * 48
