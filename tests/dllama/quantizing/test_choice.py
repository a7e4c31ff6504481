"""Which type each matrix gets: what llama-quantize (0.5.0-dev) gave files of the same names and
shapes."""

from __future__ import annotations

import numpy as np
import pytest

from dllama.errors import ConfigError
from dllama.qtypes import QType
from dllama.quantizing.choice import ModelSizes, Recipe, chosen_types, mix_named, sizes_of
from dllama.weight_source import TensorInfo

N_LAYERS = 17
PLAIN = ModelSizes(N_LAYERS, 1, 0, is_70b=False)

GIVEN = {
    "Q2_K": ("Q2_K", "33333333333333333", "33333333333333333", "33333333333333333"),
    "Q3_K_S": ("Q3_K", "33333333333333333", "33333333333333333", "33333333333333333"),
    "Q3_K_M": ("Q3_K", "55444444444444444", "44444444444444444", "54444444444444444"),
    "Q3_K_L": ("Q3_K", "55555555555555555", "55555555555555555", "55555555555555555"),
    "Q4_K_S": ("Q4_K", "55554444444444444", "44444444444444444", "55444444444444444"),
    "Q4_K_M": ("Q4_K", "66446446446446666", "44444444444444444", "66446446446446666"),
    "Q5_K_S": ("Q5_K", "55555555555555555", "55555555555555555", "55555555555555555"),
    "Q5_K_M": ("Q5_K", "66556556556556666", "55555555555555555", "66556556556556666"),
    "Q6_K": ("Q6_K", "66666666666666666", "66666666666666666", "66666666666666666"),
}
"""By the mix: the type of the embedding, and the bits of attn_v, attn_output and ffn_down in each
layer."""


def matrices(cols: int = 256, *, has_output: bool = True) -> list[TensorInfo]:
    names = ["attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"]
    found = [TensorInfo("token_embd.weight", QType.F16, 512, cols)]
    found += [
        TensorInfo(f"blk.{layer}.{name}.weight", QType.F16, 256, cols)
        for layer in range(N_LAYERS)
        for name in names
    ]
    return found + [TensorInfo("output.weight", QType.F16, 512, cols)] * has_output


def bits(chosen: dict[str, QType], name: str) -> str:
    return "".join(chosen[f"blk.{i}.{name}.weight"].name[1] for i in range(N_LAYERS))


@pytest.mark.parametrize("name", GIVEN)
def test_mixes_give_what_llama_quantize_gives(name: str) -> None:
    chosen = chosen_types(matrices(), PLAIN, Recipe(mix_named(name.lower())))
    found = [bits(chosen, part) for part in ("attn_v", "attn_output", "ffn_down")]
    assert (chosen["token_embd.weight"].name, *found) == GIVEN[name]
    assert chosen["output.weight"] is QType.Q6_K
    assert len(set(bits(chosen, "ffn_up"))) == 1


def test_shared_keys_eight_experts_and_70b_have_rules_of_their_own() -> None:
    q2_k, q4_k = Recipe(mix_named("q2_k")), Recipe(mix_named("q4_k"))
    shared = chosen_types(matrices(), ModelSizes(N_LAYERS, 4, 0, is_70b=False), q2_k)
    assert bits(shared, "attn_v") == "4" * N_LAYERS
    mixtral = chosen_types(matrices(), ModelSizes(N_LAYERS, 4, 8, is_70b=False), q4_k)
    assert bits(mixtral, "attn_v") == bits(mixtral, "attn_k") == "8" * N_LAYERS
    assert bits(mixtral, "attn_output") == "5" * N_LAYERS
    large = chosen_types(matrices(), ModelSizes(N_LAYERS, 8, 0, is_70b=True), q4_k)
    assert bits(large, "attn_v") == "66556556556556666"


def test_mxfp4_is_for_experts() -> None:
    experts = TensorInfo("blk.0.ffn_up_exps.weight", QType.F16, 4 * 256, 256, n_experts=4)
    chosen = chosen_types([*matrices(), experts], PLAIN, Recipe(mix_named("mxfp4_moe")))
    assert chosen.pop(experts.name) is QType.MXFP4 and set(chosen.values()) == {QType.Q8_0}


def test_what_is_asked_for_comes_before_the_mix() -> None:
    recipe = Recipe(
        mix_named("q4_k_m"), output=QType.Q8_0, embedding=QType.Q5_0,
        types=(("ffn_(up|gate)", QType.Q3_K),),
    )  # fmt: skip
    chosen = chosen_types(matrices(), PLAIN, recipe)
    assert chosen["output.weight"] is QType.Q8_0
    assert chosen["token_embd.weight"] is QType.Q5_0
    assert bits(chosen, "ffn_gate") == "3" * N_LAYERS
    pure = chosen_types(matrices(), PLAIN, Recipe(mix_named("q4_k_m"), is_pure=True))
    assert set(pure.values()) == {QType.Q4_K}
    left = chosen_types(matrices(), PLAIN, Recipe(mix_named("q4_k_m"), keeps_output=True))
    assert left["output.weight"] is QType.F16


def test_an_embedding_that_is_the_head_gets_the_heads_type() -> None:
    recipe = Recipe(mix_named("q4_k_m"), output=QType.Q5_K)
    tied = matrices(has_output=False)
    assert chosen_types(tied, PLAIN, recipe)["token_embd.weight"] is QType.Q5_K
    plain = chosen_types(tied, PLAIN, Recipe(mix_named("q4_k_m")))
    assert plain["token_embd.weight"] is QType.Q6_K


@pytest.mark.parametrize(
    ("cols", "name", "expected"),
    [(288, "q4_k_m", "Q5_0"), (288, "q5_k_s", "Q5_1"), (288, "q6_k", "Q8_0"),
     (288, "q2_k", "Q4_0"), (288, "iq4_xs", "IQ4_NL"), (40, "q4_k_m", "F16"),
     (40, "q8_0", "F16")],
)  # fmt: skip
def test_rows_that_are_no_whole_blocks_get_another_type(
    cols: int, name: str, expected: str
) -> None:
    chosen = chosen_types(matrices(cols), PLAIN, Recipe(mix_named(name)))
    assert chosen["blk.3.ffn_up.weight"].name == expected


def test_small_matrices_and_vectors_stay() -> None:
    kept = [
        TensorInfo("blk.0.ffn_gate_inp.weight", QType.F32, 8, 256),
        TensorInfo("blk.0.attn_norm.weight", QType.F32, 1, 256),
        TensorInfo("blk.0.attn_q.bias", QType.F32, 1, 256),
        TensorInfo("blk.0.ssm_conv1d.weight", QType.F32, 512, 4),
    ]
    chosen = chosen_types([*matrices(), *kept], PLAIN, Recipe(mix_named("q4_0")))
    assert all(chosen[info.name] is QType.F32 for info in kept)


def test_what_is_quantized_is_not_quantized_again_unasked() -> None:
    tensors = [TensorInfo("blk.0.ffn_up.weight", QType.Q8_0, 256, 256)]
    with pytest.raises(ConfigError, match=r"ffn_up\.weight is Q8_0.* --allow-requantize"):
        chosen_types(tensors, PLAIN, Recipe(mix_named("q4_0")))
    assert chosen_types(tensors, PLAIN, Recipe(mix_named("q8_0"))) == {tensors[0].name: QType.Q8_0}
    allowed = Recipe(mix_named("q4_0"), allows_requantize=True)
    assert chosen_types(tensors, PLAIN, allowed) == {tensors[0].name: QType.Q4_0}


def test_unknown_mixes_are_named() -> None:
    with pytest.raises(ConfigError, match="cannot be quantized to 'q9'; the types are F32, F16"):
        mix_named("q9")


def test_sizes_come_from_the_metadata() -> None:
    keys = {
        "general.architecture": "llama", "llama.block_count": 80,
        "llama.attention.head_count": 64, "llama.attention.head_count_kv": 8,
        "llama.expert_count": 0,
    }  # fmt: skip
    assert sizes_of(keys) == ModelSizes(80, 8, 0, is_70b=True)
    each = keys | {"llama.attention.head_count_kv": np.full(80, 64, np.int32)}
    assert sizes_of(each) == ModelSizes(80, 1, 0, is_70b=False)
    assert sizes_of({}) == ModelSizes(0, 1, 0, is_70b=False)
