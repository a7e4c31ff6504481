"""Tensors with a third axis and layers of different kinds: read, cut, fed and packed like others.
The family of this test has a layer of each kind."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dllama.config import ModelConfig
from dllama.errors import ModelFileError
from dllama.formats import open_model
from dllama.models import FAMILIES
from dllama.models.blocks import FEED_FORWARD, NORM1, NORM2, QKV, WO
from dllama.models.family import Family
from dllama.models.tensors import Tensor
from dllama.qtypes import QType
from dllama.runtime.layer import Layer
from dllama.runtime.linear import Linear
from dllama.runtime.weights import Weights, build_weights
from dllama.sharding.cut import cut_tensors
from dllama.sharding.plan import plan_for
from dllama.sharding.units import units_of
from dllama.weight_source import WeightSource
from kernels.matmul.multiply import matmul
from kernels.matmul.sums import Kind
from kernels.prepare import activations, prepare
from kernels.team import Team
from tests.cluster.weights.transfer import transferred
from tests.references.forward import tensor_values
from tests.toy_models import write_toy

N_EXPERTS = 3


def is_dense(config: ModelConfig, layer: int) -> bool:
    return layer == 0


def has_experts(config: ModelConfig, layer: int) -> bool:
    return layer > 0


def expert(tensor: Tensor) -> Tensor:
    gguf = tensor.gguf.replace(".weight", "_exps.weight")
    return replace(
        tensor, name=f"{tensor.name}_exps", gguf=gguf, joined=tensor.joined and "gate_up_exps",
        m=None, experts=lambda _: N_EXPERTS, when=has_experts,
    )  # fmt: skip


MIXED = Family(
    arch="toy-moe",
    title="a first layer without experts, others with them",
    layer=(
        NORM1, *QKV, WO, NORM2, *(replace(t, when=is_dense) for t in FEED_FORWARD),
        *(expert(t) for t in FEED_FORWARD),
    ),
)  # fmt: skip


@pytest.fixture(params=[QType.F32, QType.Q8_0], ids=lambda q: q.name)
def source(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> WeightSource:
    monkeypatch.setitem(FAMILIES, MIXED.arch, MIXED)
    return open_model(write_toy(tmp_path / "toy.gguf", arch=MIXED.arch, qtype=request.param))


def times_identity(team: Team, linear: Linear, expert: int) -> np.ndarray:
    """The matrix (rows, cols) that a packed one of several multiplies with."""
    a = activations(linear.cols, linear.cols)
    a.rows[:] = np.eye(linear.cols, dtype=np.float32)
    prepare(team.state, a, linear.cols, linear.needs)
    out = np.zeros((linear.cols, linear.width), np.float32)
    table = np.array([[1, linear.cols, 0], [expert, 0, linear.cols]], np.int32)
    for column, part in linear.parts:
        matmul(team.state, part, a, linear.cols, out, column, table=table)
    return out[:, : linear.out_dim].T


def weights_of(source: WeightSource, team: Team, shares: list[float]) -> list[Weights]:
    shards = plan_for(source.config, source.tensors, shares)
    units = units_of(source.config, source.tensors)
    return [
        build_weights(source.config, cut_tensors(source, s), team.state, 0, units, Kind.FIXED)
        for s in shards
    ]


def test_layers_have_their_own_tensors(source: WeightSource) -> None:
    assert "layers.0.w1" in source.tensors and "layers.1.w1" not in source.tensors
    info = source.tensors["layers.1.w1_exps"]
    assert (info.n_experts, info.rows, info.cols) == (N_EXPERTS, N_EXPERTS * 160, 64)
    assert source.read("layers.1.w1_exps", range(5, 7)).shape[0] == 2 * N_EXPERTS


@pytest.mark.parametrize("shares", [[1.0], [1.0, 1.0], [3.0, 1.0, 1.0]], ids=len)
def test_ranks_hold_their_part_of_every_expert(source: WeightSource, shares: list[float]) -> None:
    shards = plan_for(source.config, source.tensors, shares)
    whole = {
        name: tensor_values(source, f"layers.1.{name}_exps").reshape(N_EXPERTS, *shape)
        for name, shape in (("w1", (160, 64)), ("w3", (160, 64)), ("w2", (64, 160)))
    }
    with Team(1) as team:
        for shard, weights in zip(shards, weights_of(source, team, shares), strict=True):
            layer: Layer = weights.layers[1]
            mine = slice(shard.hidden.start, shard.hidden.stop)
            assert layer.matrix("gate_up") is None and weights.layers[0].matrix("gate_up")
            both, down = layer.matrices["gate_up_exps"], layer.matrices["w2_exps"]
            assert both.n_matrices == down.n_matrices == N_EXPERTS
            for i in range(N_EXPERTS):
                gate_up = times_identity(team, both, i)
                joined = np.concatenate([whole["w1"][i, mine], whole["w3"][i, mine]])
                np.testing.assert_allclose(gate_up, joined, atol=1e-5)
                own = times_identity(team, down, i)
                np.testing.assert_allclose(own, whole["w2"][i][:, mine], atol=1e-5)


def test_experts_travel_in_chunks_like_others(source: WeightSource) -> None:
    shard = plan_for(source.config, source.tensors, [1.0, 1.0])[1]
    received, _ = transferred(source, shard)
    wanted = cut_tensors(source, shard)
    for (info, array), (want_info, want) in zip(received, wanted, strict=True):
        assert info == want_info and np.array_equal(array, want)


def test_vectors_of_heads_and_of_experts_travel(tmp_path: Path) -> None:
    """gpt-oss's sinks and biases; one of those is for the first rank alone."""
    source = open_model(write_toy(tmp_path / "toy.gguf", arch="gpt-oss", qtype=QType.Q8_0))
    for rank, shard in enumerate(plan_for(source.config, source.tensors, [1.0, 2.0, 1.0])):
        received, _ = transferred(source, shard)
        for (info, array), (want_info, want) in zip(
            received, cut_tensors(source, shard), strict=True
        ):
            assert info == want_info and np.array_equal(array, want)
        names = {info.short_name for info, _ in received}
        assert {"bo", "router_bias", "expert_b1", "expert_b3"} <= names
        assert ("expert_b2" in names) is (rank == 0)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"rows": N_EXPERTS * 64}, r"layers\.1\.w3_exps has 64 values"),
        ({"n_experts": 1}, r"layers\.1\.w3_exps has 1 matrices, and 3 are expected"),
    ],
)
def test_experts_of_other_sizes_are_refused(
    source: WeightSource, change: dict[str, int], sentence: str
) -> None:
    [shard] = plan_for(source.config, source.tensors, [1.0])
    feed = cut_tensors(source, shard)
    manifest = [
        replace(info, **change) if info.short_name == "w3_exps" else info for info in feed.manifest
    ]
    with Team(1) as team, pytest.raises(ModelFileError, match=sentence):
        build_weights(
            source.config, replace(feed, manifest=manifest), team.state, 0,
            units_of(source.config, source.tensors), Kind.ROUNDED,
        )  # fmt: skip
