"""Weights are whole, in order and of the model's sizes, or they are refused with a sentence."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from dllama.errors import ModelFileError
from dllama.runtime.manifest import manifest_by_layer
from dllama.runtime.weights import Weights, build_weights
from dllama.sharding.cut import cut_tensors
from dllama.sharding.plan import plan_shards
from dllama.sharding.units import sum_units
from dllama.weight_source import TensorFeed, TensorInfo
from kernels.matmul.sums import Kind
from kernels.team import Team
from tests.cluster.array_source import ArraySource, small_config

CONFIG = small_config()
Tensors = list[tuple[TensorInfo, np.ndarray]]


def tensors_of(rank: int = 0) -> Tensors:
    """What one of two ranks is fed."""
    return list(cut_tensors(ArraySource(CONFIG), plan_shards(CONFIG, [1.0, 1.0])[rank]))


def built(tensors: Tensors) -> Weights:
    with Team(1) as team:
        feed = TensorFeed([info for info, _ in tensors], tensors)
        return build_weights(CONFIG, feed, team.state, 0, sum_units(CONFIG), Kind.ROUNDED)


def test_weights_are_the_ranks_own() -> None:
    weights = built(tensors_of())
    shard = plan_shards(CONFIG, [1.0, 1.0])[0]
    assert weights.n_kv_heads == len(shard.kv_heads) and weights.n_vocab == len(shard.vocab)
    assert [layer.index for layer in weights.layers] == [0, 1]


@pytest.mark.parametrize(
    ("left_out", "words"),
    [("layers.1.", "^1 of 2 layers arrived, and outside of them norm;"), ("norm", "nothing;")],
)
def test_what_is_missing_at_the_end_is_said(left_out: str, words: str) -> None:
    kept = [(info, raw) for info, raw in tensors_of() if not info.name.startswith(left_out)]
    with pytest.raises(ModelFileError, match=words):
        built(kept)


def test_the_last_norm_has_the_size_of_the_model() -> None:
    short = [
        (replace(info, cols=16), raw[:, :64]) if info.name == "norm" else (info, raw)
        for info, raw in tensors_of()
    ]
    with pytest.raises(ModelFileError, match="in the model's sizes"):
        built(short)


def test_layers_come_one_after_the_other() -> None:
    tensors = tensors_of()
    n = sum(info.layer == 0 for info, _ in tensors)
    with pytest.raises(ModelFileError, match="arrived while layer 0 was expected"):
        built([*tensors[n:], *tensors[:n]])


def changed(name: str, /, **changes: object) -> list[TensorInfo]:
    infos = [info for info, _ in tensors_of()]
    return [replace(i, **changes) if i.name == name else i for i in infos]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "changes", "words"),
    [
        ("layers.1.w1", {"rows": 40}, "values along hidden_dim"),
        ("layers.0.wv", {"rows": 8}, "values along kv_dim"),
        ("layers.0.wq", {"cols": 31}, "values along dim"),
        ("layers.0.wo", {"first_own_col": 1, "n_own_cols": 32}, "computes those from 1 to 33"),
        ("layers.0.wo", {"first_own_col": 1}, "values along q_dim"),
        ("layers.1.w2", {"n_own_cols": 16}, "values along hidden_dim"),
        ("layers.0.norm1", {"n_own_cols": 16}, "computes those from 0 to 16"),
        ("layers.1.w2", {"name": "layers.2.w2"}, "belongs to no llama model of 2 layers"),
        ("layers.1.w2", {"name": "layers.1.w4"}, "belongs to no llama model of 2 layers"),
    ],
)
def test_sizes_that_do_not_fit_each_other_are_refused(
    name: str, changes: dict[str, object], words: str
) -> None:
    manifest_by_layer(CONFIG, [info for info, _ in tensors_of()])
    with pytest.raises(ModelFileError, match=words):
        manifest_by_layer(CONFIG, changed(name, **changes))
