"""Every family's table says what the code that reads it relies on."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import gguf
import pytest

from dllama.config import ModelConfig
from dllama.errors import ModelFileError
from dllama.formats import open_model
from dllama.models import FAMILIES, model_tensors
from dllama.models.family import Family
from dllama.models.latent import LATENT_ATTENTION
from dllama.models.tensors import Tensor
from tests.cluster.array_source import small_config
from tests.dllama.formats.crafted import rewrite
from tests.toy_models import DELTA, LATENT, write_toy

families = pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)


def configs_of(family: Family) -> list[ModelConfig]:
    """With every tensor that the family has: of models without experts and of mixtures."""
    delta = DELTA.get(family.arch)  # of two layers the second one attends
    dense = small_config(arch=family.arch, has_qkv_bias=True, has_qk_norm=True, delta=delta)
    if family.attention is LATENT_ATTENTION:
        dense = replace(dense, latent=LATENT)
    mixed = replace(dense, n_experts=4, n_active_experts=2, shared_hidden_dim=192)
    return [dense, mixed]


def tensors_of(family: Family, config: ModelConfig) -> list[Tensor]:
    """Of all kinds of layers."""
    layers = [family.layer_tensors(config, i) for i in range(config.n_layers)]
    return list(dict.fromkeys([*family.model_tensors(config), *itertools.chain(*layers)]))


@families
def test_names_are_those_of_gguf(family: Family) -> None:
    """llama.cpp's own list of the architecture's tensors has each of ours."""
    [arch] = [a for a, name in gguf.MODEL_ARCH_NAMES.items() if name == family.arch]
    known = {gguf.TENSOR_NAMES[t].replace("{bid}", "0") for t in gguf.MODEL_TENSORS[arch]}
    for config in configs_of(family):
        config = replace(
            config, has_qkv_bias=family.always.get("has_qkv_bias", False),
            is_tied="output" not in known,
        )  # fmt: skip
        ours = {t.gguf for t in family.model_tensors(config)}
        for i in range(config.n_layers):
            ours |= {f"blk.0.{t.gguf}" for t in family.layer_tensors(config, i)}
        # its list names a weight and its bias once
        assert {name.rpartition(".")[0] for name in ours - known} <= known


@families
def test_names_differ_within_a_family(family: Family) -> None:
    for config in configs_of(family):
        tensors = tensors_of(family, config)
        assert len({t.name for t in tensors}) == len(tensors)
        for names in ([t.gguf for t in tensors], [t.hf for t in tensors]):
            assert [name for name, _ in itertools.groupby(names)] == list(dict.fromkeys(names))


@families
def test_what_a_file_stores_as_one_tensor_can_lie_in_it(family: Family) -> None:
    """Matrices of one width, of which a GGUF file has those of no experts: its parts are written
    one after the other."""
    for config in configs_of(family):
        tensors = tensors_of(family, config)
        for name_of in (lambda t: t.gguf, lambda t: t.hf):
            for _, group in itertools.groupby(tensors, name_of):
                first, *others = group
                for part in others:
                    assert not part.is_vector and part.cols is first.cols
                    assert part.n_experts(config) == first.n_experts(config)
        for _, group in itertools.groupby(tensors, lambda t: t.gguf):
            parts = list(group)
            assert len(parts) == 1 or all(part.experts is None for part in parts)


def test_a_llama_is_dense_or_a_mixture() -> None:
    dense, mixed = configs_of(FAMILIES["llama"])
    assert "layers.0.w1" in model_tensors(dense) and "layers.0.router" not in model_tensors(dense)
    assert "layers.0.w1" not in model_tensors(mixed)
    shape = model_tensors(mixed)["layers.1.expert_w2"].shape(mixed)
    assert shape == (4 * mixed.dim, mixed.hidden_dim)


def test_a_tensor_is_there_only_where_the_config_says_so() -> None:
    plain, biased = small_config(), small_config(has_qkv_bias=True)
    assert "layers.0.bq" not in model_tensors(plain) and "layers.1.bq" in model_tensors(biased)
    assert "wcls" in model_tensors(plain)
    assert "wcls" not in model_tensors(replace(plain, is_tied=True))


def test_layers_that_predict_further_tokens_are_left_out(tmp_path: Path) -> None:
    toy = write_toy(tmp_path / "toy.gguf", arch="glm4moe", n_layers=3)
    more = {"glm4moe.nextn_predict_layers": 1}
    rename = {"blk.2.attn_norm.weight": "blk.2.nextn.enorm.weight"}
    found = open_model(rewrite(toy, tmp_path / "more.gguf", metadata=more, rename=rename))
    assert found.config.n_layers == 2 and "layers.2.wq" not in found.tensors
    with pytest.raises(ModelFileError, match="promises -1 layers"):
        open_model(rewrite(toy, tmp_path / "b", metadata={"glm4moe.nextn_predict_layers": 4}))


def test_a_mixture_begins_after_its_dense_layers(tmp_path: Path) -> None:
    source = open_model(write_toy(tmp_path / "toy.gguf", arch="glm4moe"))
    assert source.tensors["layers.0.w1"].rows == 224 and "layers.0.router" not in source.tensors
    assert "layers.1.w1" not in source.tensors and "layers.1.choice_bias" in source.tensors
    assert source.config.is_mixture(1) and not source.config.is_mixture(0)


BAD_MIXTURES = [
    {"expert_group_count": 3, "expert_group_used_count": 2},
    {"expert_group_count": 4, "expert_group_used_count": 5},
    {"expert_group_count": 4, "expert_group_used_count": 1},  # of two experts, for three
    {"leading_dense_block_count": 3},
]


@pytest.mark.parametrize("said", BAD_MIXTURES, ids=str)
def test_sizes_of_a_mixture_that_do_not_fit_are_refused(
    tmp_path: Path, said: dict[str, object]
) -> None:
    toy = write_toy(tmp_path / "toy.gguf", arch="glm4moe")
    metadata = {f"glm4moe.{key}": value for key, value in said.items()}
    with pytest.raises(ModelFileError, match="groups of one size"):
        open_model(rewrite(toy, tmp_path / "bad.gguf", metadata=metadata))
