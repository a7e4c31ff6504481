"""Folders of safetensors files: the same model as the GGUF file of the same weights."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dllama.config import LayerAttention, QueryGrowth, RopeScaling, RopeScalingKind
from dllama.errors import ModelFileError, UnknownTensorType
from dllama.formats import check_is_model, format_of, open_model
from dllama.formats.checkpoint.folder import checkpoint_name
from dllama.formats.checkpoint.source import CheckpointSource
from dllama.models import model_tensors
from dllama.qtypes import QType
from tests.checkpoints import Entry, write_checkpoint, write_safetensors
from tests.references.forward import reference_logits
from tests.toy_models import (
    DEEPSEEK,
    DELTA,
    EXPERTS,
    GRANITE,
    LONGROPE,
    MIXTRAL,
    V2_LITE,
    llama4_layers,
    toy_tensor,
    write_toy,
)

OLMO3 = {
    "attention_layers": (LayerAttention(16, has_local_rope=True),) * 2,
    "rope_scaling": RopeScaling(RopeScalingKind.YARN, 8.0, 32),
}  # fmt: skip
COHERE2 = (LayerAttention(16),) * 2  # of two layers none is the fourth
MINISTRAL3 = {
    "rope_scaling": RopeScaling(RopeScalingKind.YARN, 8.0, 32, attention_factor=1.0),
    "query_growth": QueryGrowth(0.25, 32, first=0, is_everywhere=True),
}  # fmt: skip
MODELS: list[tuple[str, str, QType, dict[str, object]]] = [
    ("llama", "llama", QType.F32, {}),
    ("llama", "mistral", QType.BF16, {}),
    ("mistral3", "ministral3", QType.F32, MINISTRAL3),
    ("qwen2", "qwen2", QType.F16, {}),
    ("qwen3", "qwen3", QType.BF16, {}),
    ("exaone4", "exaone4", QType.F32, {}),
    ("phi3", "phi3", QType.F32, LONGROPE),
    ("granite", "granite", QType.BF16, GRANITE),
    ("granite", "granitemoehybrid", QType.F32, GRANITE),
    ("olmo2", "olmo2", QType.F32, {}),
    ("olmo2", "olmo3", QType.F32, OLMO3),
    ("chatglm", "glm", QType.BF16, {"partial_rotary_dim": 16, "has_qkv_bias": True}),
    ("glm4", "glm4", QType.BF16, {"partial_rotary_dim": 16, "has_qkv_bias": True}),
    ("command-r", "cohere", QType.F32, {"logit_scale": 0.0625, "has_qk_norm": True}),
    ("cohere2", "cohere2", QType.F32, {"logit_scale": 0.25, "attention_layers": COHERE2}),
]
TOKENS = range(5, 25)


@pytest.mark.parametrize(("arch", "model_type", "qtype", "fields"), MODELS)
def test_a_folder_is_the_same_model_as_a_gguf_file(
    tmp_path: Path, arch: str, model_type: str, qtype: QType, fields: dict[str, object]
) -> None:
    folder = write_checkpoint(
        tmp_path / "toy", arch=arch, model_type=model_type, qtype=qtype, head_dim=32, fields=fields
    )
    toy = write_toy(tmp_path / "toy.gguf", arch=arch, qtype=qtype, head_dim=32, **fields)  # type: ignore[arg-type]
    gguf = open_model(toy)
    source = open_model(folder)
    assert isinstance(source, CheckpointSource)
    assert replace(source.config, name="") == replace(gguf.config, name="")
    assert source.config.name == "toy"
    assert source.tensors.keys() == gguf.tensors.keys()
    for name, info in source.tensors.items():
        assert info.qtype is qtype
        if info.rows > 1:  # of norms GGUF files have more digits
            assert np.array_equal(source.read(name), gguf.read(name)), name
    if qtype is QType.F32:
        assert np.array_equal(reference_logits(source, TOKENS), reference_logits(gguf, TOKENS))


MIXTURES = [
    ("llama", "mixtral", MIXTRAL),
    ("qwen3moe", "qwen3_moe", EXPERTS["qwen3moe"]),
    ("granitemoe", "granitemoe", EXPERTS["granitemoe"] | GRANITE),
    *(
        ("granitemoe", kind, EXPERTS["granitemoe"] | GRANITE | {"shared_hidden_dim": 320})
        for kind in ("granitemoeshared", "granitemoehybrid")
    ),
    ("olmoe", "olmoe", EXPERTS["olmoe"]),
    ("phimoe", "phimoe", EXPERTS["phimoe"]),
    (
        "llama4",
        "llama4_text",
        EXPERTS["llama4"]
        | {
            "shared_hidden_dim": 160,
            "attention_layers": llama4_layers(2),
        },
    ),
    ("qwen2moe", "qwen2_moe", EXPERTS["qwen2moe"] | {"shared_hidden_dim": 320}),
    ("glm4moe", "glm4_moe", EXPERTS["glm4moe"] | {"shared_hidden_dim": 160}),
    ("deepseek2", "deepseek_v3", DEEPSEEK),
    ("deepseek2", "kimi_k2", DEEPSEEK | {"n_expert_groups": 1, "n_active_groups": 1}),
    ("deepseek2", "deepseek_v2", DEEPSEEK | V2_LITE),
]


@pytest.mark.parametrize(("arch", "model_type", "experts"), MIXTURES)
def test_experts_that_are_stored_one_by_one_are_stacked(
    tmp_path: Path, arch: str, model_type: str, experts: dict[str, object]
) -> None:
    folder = write_checkpoint(
        tmp_path / "toy", arch=arch, model_type=model_type, fields=experts, n_files=2
    )
    gguf = open_model(write_toy(tmp_path / "toy.gguf", arch=arch, **experts))  # type: ignore[arg-type]
    source = open_model(folder)
    assert replace(source.config, name="") == replace(gguf.config, name="")
    for name, info in gguf.tensors.items():
        assert source.tensors[name] == info
        assert np.array_equal(source.read(name), gguf.read(name)), name
    name = "layers.1.expert_w1"
    cut = source.read(name, range(8, 24), range(16, 32))
    assert np.array_equal(cut, gguf.read(name, range(8, 24), range(16, 32)))


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ({"router_jitter_noise": 0.1}, "router_jitter_noise is 0.1"),
        ({"rope_parameters": {
            "type": "longrope", "short_factor": [1.0] * 8, "long_factor": [2.0] * 8,
            "short_mscale": 1.25, "long_mscale": 1.5, "original_max_position_embeddings": 128,
        }}, "long_mscale is '1.5'; expected that of short contexts, 1.25"),
    ],
)  # fmt: skip
def test_routers_and_positions_of_phimoe_that_are_not_computed(
    tmp_path: Path, said: dict[str, object], why: str
) -> None:
    folder = write_checkpoint(tmp_path / "toy", arch="phimoe", fields=EXPERTS["phimoe"], **said)
    with pytest.raises(ModelFileError, match=why):
        open_model(folder)


@pytest.mark.parametrize("prefix", ["language_model.model.", "model.language_model."])
def test_the_text_part_of_mistral_small(tmp_path: Path, prefix: str) -> None:
    """Its heads are smaller than its width would make them."""

    def change(tensors: dict[str, Entry]) -> None:
        for name in list(tensors):
            head = name.replace("lm_head.", "language_model.lm_head.")
            theirs = head if "lm_head" in name else name.replace("model.", prefix, 1)
            tensors[theirs] = tensors.pop(name)
        tensors["vision_tower.patch_conv.weight"] = ("F32", (2,), bytes(8))

    folder = write_checkpoint(
        tmp_path / "toy", model_type="mistral", head_dim=8, change=change, sliding_window=None
    )
    said = json.loads((folder / "config.json").read_text())
    del said["tie_word_embeddings"]
    whole = {"model_type": "mistral3", "text_config": said, "vision_config": {}}
    (folder / "config.json").write_text(json.dumps(whole))
    source, gguf = open_model(folder), open_model(write_toy(tmp_path / "t.gguf", head_dim=8))
    assert replace(source.config, name="") == replace(gguf.config, name="")
    assert source.config.head_dim * source.config.n_heads == source.config.dim // 2
    assert np.array_equal(reference_logits(source, TOKENS), reference_logits(gguf, TOKENS))


@pytest.mark.parametrize("arch", DELTA)
def test_heads_of_gated_delta_nets_are_brought_into_our_order(tmp_path: Path, arch: str) -> None:
    """And numbers that folders have otherwise are as GGUF files have them, but for their last
    bits."""
    fields: dict[str, object] = {"delta": DELTA[arch], "partial_rotary_dim": 8}
    if arch in EXPERTS:
        fields |= {"shared_hidden_dim": 320, **EXPERTS[arch]}
    folder = write_checkpoint(tmp_path / "toy", arch=arch, fields=fields)
    gguf = open_model(write_toy(tmp_path / "toy.gguf", arch=arch, **fields))  # type: ignore[arg-type]
    source = open_model(folder)
    assert replace(source.config, name="") == replace(gguf.config, name="")
    assert source.config.delta == replace(DELTA[arch], n_slots=32)
    for name, tensor in model_tensors(source.config).items():
        ours = toy_tensor(source.config, name, 0)
        for each in (source, gguf):
            stored = each.read(name).view(np.float32)
            assert each.tensors[name].qtype is QType.F32 and stored.shape == ours.shape
            if tensor.is_vector:
                np.testing.assert_allclose(stored, ours, rtol=1e-6)
            else:
                assert np.array_equal(stored, ours), name
    rows, cols = range(16, 48), range(32, 64)
    for name, cut in (("delta_v", (rows, None)), ("delta_out", (None, cols))):
        whole = gguf.read(f"layers.0.{name}").view(np.float32)
        part = gguf.read(f"layers.0.{name}", *cut).view(np.float32)
        assert np.array_equal(part, whole[rows] if cut[0] else whole[:, cols])


def test_the_text_part_of_a_model_that_sees_pictures(tmp_path: Path) -> None:
    """And experts in two tensors of a layer; what guesses further ahead is left out."""
    fields: dict[str, object] = {"delta": DELTA["qwen35moe"], "shared_hidden_dim": 320}
    fields |= EXPERTS["qwen35moe"]

    def change(tensors: dict[str, Entry]) -> None:
        for layer in range(2):
            base = f"model.layers.{layer}.mlp.experts."
            each = {
                which: [tensors.pop(f"{base}{e}.{which}_proj.weight") for e in range(8)]
                for which in ("gate", "up", "down")
            }
            (dtype, (rows, cols), _), *_ = each["gate"]
            both = zip(each["gate"], each["up"], strict=True)
            raw = b"".join(gate[2] + up[2] for gate, up in both)
            tensors[base + "gate_up_proj"] = (dtype, (8, 2 * rows, cols), raw)
            raw = b"".join(entry[2] for entry in each["down"])
            tensors[base + "down_proj"] = (dtype, (8, cols, rows), raw)
        for name in list(tensors):
            if name.startswith("model."):
                entry = tensors.pop(name)
                tensors[name.replace("model.", "model.language_model.", 1)] = entry
        other = ("F32", (2,), bytes(8))
        tensors |= {"model.visual.blocks.0.norm.weight": other, "mtp.norm.weight": other}

    plain = write_checkpoint(tmp_path / "plain", arch="qwen35moe", fields=fields)
    folder = write_checkpoint(tmp_path / "toy", arch="qwen35moe", fields=fields, change=change)
    said = json.loads((folder / "config.json").read_text())
    text = {key: value for key, value in said.items() if key != "tie_word_embeddings"}
    text["model_type"] = "qwen3_5_moe_text"
    del text["intermediate_size"]
    whole = {
        "model_type": "qwen3_5_moe", "text_config": text, "vision_config": {"depth": 2},
        "tie_word_embeddings": False,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(whole))
    source, wanted = open_model(folder), open_model(plain)
    assert replace(source.config, name="") == replace(wanted.config, name="")
    for name, info in wanted.tensors.items():
        assert source.tensors[name] == info
        assert np.array_equal(source.read(name), wanted.read(name)), name
    cut = (range(8, 24), range(16, 32))
    assert np.array_equal(
        source.read("layers.1.expert_w3", *cut), wanted.read("layers.1.expert_w3", *cut)
    )


def test_layers_that_predict_further_tokens_are_left_out(tmp_path: Path) -> None:
    toy = {"arch": "glm4moe", "fields": EXPERTS["glm4moe"], "n_layers": 3}
    said = {"num_hidden_layers": 2, "num_nextn_predict_layers": 1}
    source = open_model(write_checkpoint(tmp_path / "toy", **toy, **said))  # type: ignore[arg-type]
    assert source.config.n_layers == 2 and "layers.2.wq" not in source.tensors
    with pytest.raises(ModelFileError, match=r"'model\.layers\.2\..*' belongs to nothing"):
        open_model(write_checkpoint(tmp_path / "b", **toy, num_hidden_layers=2))  # type: ignore[arg-type]


def test_a_family_may_rotate_a_part_of_each_head(tmp_path: Path) -> None:
    toy = {"arch": "glm4moe", "fields": EXPERTS["glm4moe"]}
    for i, (said, rotated) in enumerate([(0.25, 4), (None, 16), (1, 16)]):
        folder = write_checkpoint(tmp_path / str(i), **toy, partial_rotary_factor=said)  # type: ignore[arg-type]
        assert open_model(folder).config.rotary_dim == rotated
    rope = {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.75}
    said = {"rope_parameters": rope, "partial_rotary_factor": None}
    folder = write_checkpoint(tmp_path / "new", **toy, **said)  # type: ignore[arg-type]
    assert open_model(folder).config.rotary_dim == 12


def test_cuts_are_views_of_the_file(tmp_path: Path) -> None:
    source = open_model(write_checkpoint(tmp_path / "toy"))
    whole = source.read("layers.1.wo")
    cut = source.read("layers.1.wo", range(8, 24), range(16, 32))
    assert np.array_equal(cut, whole[8:24, 64:128])
    assert not cut.flags.owndata and not cut.flags.writeable
    source.release("layers.1.wo")
    assert np.array_equal(source.read("layers.1.wo"), whole)
    source.close()
    with pytest.raises(ModelFileError, match="closed"):
        source.read("layers.0.w1")


def test_several_files_and_any_name_of_the_folder_are_one_model(tmp_path: Path) -> None:
    one = open_model(write_checkpoint(tmp_path / "one"))
    folder = write_checkpoint(tmp_path / "parts", n_files=3)
    names = ["", "config.json", "model.safetensors.index.json", "model-00002-of-00003.safetensors"]
    for name in names:
        source = open_model(folder / name)
        for tensor in one.tensors:
            assert np.array_equal(source.read(tensor), one.read(tensor))
        assert len(source.stamp.split("\n")) == 3
        assert source.config.name == "parts"
    assert format_of(folder) == "safetensors"


def test_a_tied_head_is_the_embedding_even_where_it_is_stored(tmp_path: Path) -> None:
    tied = open_model(write_checkpoint(tmp_path / "tied", tied=True))
    assert tied.config.is_tied and "wcls" not in tied.tensors

    def store_head(tensors: dict[str, Entry]) -> None:
        tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"]

    stored = open_model(write_checkpoint(tmp_path / "stored", tied=True, change=store_head))
    assert stored.config.is_tied
    unsaid = write_checkpoint(tmp_path / "unsaid", tied=True, tie_word_embeddings=None)
    assert open_model(unsaid).config.is_tied
    with pytest.raises(ModelFileError, match=r"no tensor 'lm_head\.weight'.*tie_word_embeddings"):
        open_model(write_checkpoint(tmp_path / "none", tied=True, tie_word_embeddings=False))


# ---- config.json


@pytest.mark.parametrize(
    "scaling",
    [
        RopeScaling(RopeScalingKind.LINEAR, 2.0, 256),
        RopeScaling(RopeScalingKind.YARN, 4.0, 64, beta_fast=16.0, attention_factor=1.5),
        RopeScaling(RopeScalingKind.YARN, 4.0, 64),
    ],
    ids=["linear", "yarn", "yarn-plain"],
)
def test_scaled_positions_are_those_of_gguf(tmp_path: Path, scaling: RopeScaling) -> None:
    source = open_model(write_checkpoint(tmp_path / "toy", rope_scaling=scaling))
    gguf = open_model(write_toy(tmp_path / "toy.gguf", rope_scaling=scaling))
    assert source.config.rope_scaling == gguf.config.rope_scaling
    assert np.array_equal(reference_logits(source, TOKENS), reference_logits(gguf, TOKENS))


def test_llama3s_positions_become_the_factors_of_gguf_files(tmp_path: Path) -> None:
    """The converter of llama.cpp writes the same table."""
    scaling = RopeScaling(RopeScalingKind.LLAMA3, 8.0, 64, 1.0, 4.0)
    source = open_model(write_checkpoint(tmp_path / "toy", rope_scaling=scaling))
    assert source.config.rope_scaling is None
    factors = []
    for j in range(8):
        wave = 2 * np.pi * 10000.0 ** (2 * j / 16)
        smooth = (64 / wave - 1.0) / (4.0 - 1.0)
        blended = 1 / ((1 - smooth) / 8 + smooth)
        factors.append(1.0 if wave < 64 / 4 else 8.0 if wave > 64 else blended)
    assert source.config.rope_factors == pytest.approx(factors, rel=1e-6)


def test_newer_files_have_all_of_it_in_rope_parameters(tmp_path: Path) -> None:
    rope = {"rope_type": "linear", "factor": 3.0, "rope_theta": 5e5}
    said = {"rope_parameters": rope, "rope_theta": None}
    config = open_model(write_checkpoint(tmp_path / "toy", **said)).config
    assert config.rope_theta == 5e5 and config.rope_scaling is not None
    assert config.rope_scaling.factor == 3.0
    plain = {"rope_parameters": {"rope_type": "default", "rope_theta": 2e6}}
    assert open_model(write_checkpoint(tmp_path / "b", **plain)).config.rope_theta == 2e6


def test_what_may_be_missing_has_its_usual_value(tmp_path: Path) -> None:
    said = {"head_dim": None, "rope_theta": None, "num_key_value_heads": None}
    config = open_model(write_checkpoint(tmp_path / "toy", n_kv_heads=4, **said)).config
    assert (config.head_dim, config.n_kv_heads, config.rope_theta) == (16, 4, 10000.0)


REFUSED: dict[str, dict[str, object]] = {
    r"model_type 'gemma9', which is unknown here. This version runs Llama 2 and 3": {
        "model_type": "gemma9"
    },
    "names no `model_type`": {"model_type": None},
    "hidden_act is 'gelu'": {"hidden_act": "gelu"},
    "num_local_experts is '8'": {"num_local_experts": 8, "model_type": "qwen3"},
    "layers of the kind 'chunked'": {"layer_types": ["chunked"]},
    "layers of the kind 'mamba'": {
        "model_type": "granitemoehybrid",
        "layer_types": ["mamba", "attention"],
        "position_embedding_type": "nope",
    },
    "lacks hidden_size": {"hidden_size": None},
    "says hidden_size is '64.0'": {"hidden_size": 64.0},
    "num_hidden_layers is '0'": {"num_hidden_layers": 0},
    "rms_norm_eps is '-1'": {"rms_norm_eps": -1},
    "max_position_embeddings is 'None'": {"rope_scaling": {"type": "longrope", "factor": 2}},
    "rope value long_factor is 'None'": {
        "rope_scaling": {"type": "su", "short_factor": [1.0] * 8},
        "original_max_position_embeddings": 64,
    },
    "rope value short_factor is '0'": {
        "rope_scaling": {"type": "longrope", "short_factor": [0], "long_factor": [1]},
        "original_max_position_embeddings": 64,
    },
    "there are 7 rope factors": {
        "rope_scaling": {"type": "longrope", "short_factor": [1] * 8, "long_factor": [1] * 7},
        "original_max_position_embeddings": 64,
    },
    "in the way '\\[1": {"rope_scaling": {"type": [1], "factor": 2}},
    "rope_scaling is no object": {"rope_scaling": [1]},
    "rope value factor is '0'": {"rope_scaling": {"type": "linear", "factor": 0}},
    "rope value factor is 'None'": {"rope_scaling": {"type": "yarn"}},
    "`truncate` is false": {"rope_scaling": {"type": "yarn", "factor": 2, "truncate": False}},
    "partial_rotary_factor is '-1'": {"rope_scaling": {"partial_rotary_factor": -1}},
    "covers 20 of the 16": {"partial_rotary_factor": 1.25},
    "64 rows of 64 values; its metadata": {"head_dim": 32},
}


@pytest.mark.parametrize(("sentence", "said"), REFUSED.items(), ids=REFUSED)
def test_a_config_that_is_not_computed_is_refused_by_its_key(
    tmp_path: Path, sentence: str, said: dict[str, object]
) -> None:
    folder = write_checkpoint(tmp_path / "toy")
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | said))
    with pytest.raises(ModelFileError, match=sentence):
        open_model(folder)


def test_longrope_says_its_magnitude_or_it_follows_from_the_context(tmp_path: Path) -> None:
    """Phi-3-mini-128k's: the square root of 1 + ln(131072 / 4096) / ln(4096)."""
    rope = {"type": "su", "short_factor": [1.0] * 8, "long_factor": [2.0] * 8}
    said = {"rope_parameters": rope, "original_max_position_embeddings": 4096}
    long = write_checkpoint(tmp_path / "long", **{**said, "max_position_embeddings": 131072})
    scaling = open_model(long).config.rope_scaling
    assert scaling is not None and scaling.original_max_seq_len == 4096
    assert scaling.attention_factor == pytest.approx(1.1902380714238083)
    short = write_checkpoint(tmp_path / "short", **{**said, "max_position_embeddings": 2048})
    scaling = open_model(short).config.rope_scaling
    assert scaling is not None and scaling.attention_factor == 1.0


# ---- files


def test_tensors_that_nothing_reads_are_refused(tmp_path: Path) -> None:
    def add(name: str) -> Callable[[dict[str, Entry]], None]:
        return lambda tensors: tensors.update({name: ("F32", (64,), bytes(256))})

    odd = "model.layers.1.self_attn.o_proj.bias"
    with pytest.raises(ModelFileError, match=f"the tensor '{odd}' belongs to nothing.*families"):
        open_model(write_checkpoint(tmp_path / "odd", change=add(odd)))
    known = "model.layers.0.self_attn.rotary_emb.inv_freq"
    open_model(write_checkpoint(tmp_path / "known", change=add(known)))


def test_a_missing_or_misshapen_tensor_is_named(tmp_path: Path) -> None:
    name = "model.layers.1.mlp.up_proj.weight"
    with pytest.raises(ModelFileError, match=f"has no tensor '{name}'"):
        open_model(write_checkpoint(tmp_path / "a", change=lambda tensors: tensors.pop(name)))
    with pytest.raises(ModelFileError, match=r"has no tensor 'model\.embed_tokens\.weight'"):
        open_model(
            write_checkpoint(
                tmp_path / "b", change=lambda tensors: tensors.pop("model.embed_tokens.weight")
            )
        )
    deep: Entry = ("F32", (2, 80, 64), bytes(4 * 160 * 64))
    with pytest.raises(ModelFileError, match=r"has the shape \[2, 80, 64\]"):
        open_model(
            write_checkpoint(tmp_path / "c", change=lambda tensors: tensors.update({name: deep}))
        )
    wide: Entry = ("F64", (160, 64), bytes(8 * 160 * 64))
    with pytest.raises(UnknownTensorType, match=f"{name} is stored as F64") as caught:
        open_model(
            write_checkpoint(tmp_path / "d", change=lambda tensors: tensors.update({name: wide}))
        )
    assert caught.value.qtype == "F64"


def test_a_folder_that_is_not_whole_says_what_is_missing(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "parts", n_files=3)
    part = folder / "model-00002-of-00003.safetensors"
    kept = part.read_bytes()
    part.unlink()
    with pytest.raises(ModelFileError, match=r"lacks 1 of 3 files.*model-00002-of-00003"):
        open_model(folder)
    part.write_bytes(kept[:-7])
    with pytest.raises(ModelFileError, match=r"model-00002.*truncated or corrupt"):
        open_model(folder)
    part.write_bytes(kept)
    (folder / "model.safetensors.index.json").unlink()
    with pytest.raises(ModelFileError, match=r"3 safetensors files and no .*index"):
        open_model(folder)
    for file in folder.glob("*.safetensors"):
        file.unlink()
    with pytest.raises(ModelFileError, match=r"no safetensors files; .*pickles"):
        open_model(folder)


@pytest.mark.parametrize(
    ("index", "said"),
    [
        ({"weight_map": {"x": "../other.safetensors"}}, "has no `weight_map`"),
        ({"weight_map": {"x": "/etc/passwd"}}, "has no `weight_map`"),
        ({"weight_map": {"x": 3}}, "has no `weight_map`"),
        ({"weight_map": {}}, "has no `weight_map`"),
        ({}, "has no `weight_map`"),
        ({"weight_map": {"x": "model-00001-of-00002.safetensors"}}, "'x' is in .*does not hold it"),
    ],
)
def test_an_index_is_not_believed(tmp_path: Path, index: object, said: str) -> None:
    folder = write_checkpoint(tmp_path / "toy", n_files=2)
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ModelFileError, match=said):
        open_model(folder)


def test_a_tensor_in_two_files_is_refused(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "toy", n_files=2)
    index = json.loads((folder / "model.safetensors.index.json").read_text())["weight_map"]
    name = next(name for name, file in index.items() if "00001" in file)
    write_safetensors(folder / "model-00002-of-00002.safetensors", {name: ("F32", (1,), bytes(4))})
    with pytest.raises(ModelFileError, match=f"The tensor '{name}' is in .* and in"):
        open_model(folder)


def test_what_is_no_checkpoint_is_told_so(tmp_path: Path) -> None:
    lone = write_safetensors(tmp_path / "lone.safetensors", {"x": ("F32", (1,), bytes(4))})
    with pytest.raises(ModelFileError, match=r"has no config\.json, which belongs"):
        open_model(lone)
    with pytest.raises(ModelFileError, match="is a directory without"):
        check_is_model(tmp_path)
    folder = write_checkpoint(tmp_path / "toy")
    (folder / "config.json").write_text("{")
    with pytest.raises(ModelFileError, match=r"config\.json is no JSON"):
        open_model(folder)
    (folder / "config.json").write_text("[1]")
    with pytest.raises(ModelFileError, match="holds no JSON object"):
        open_model(folder)


def test_a_model_is_called_like_its_folder_or_repository(tmp_path: Path) -> None:
    snapshot = (
        tmp_path / "models--Qwen--Qwen3-0.6B" / "snapshots" / "c1899de289a04d12100db370d81485"
    )
    snapshot.mkdir(parents=True)
    assert checkpoint_name(snapshot) == "Qwen3-0.6B"
    assert checkpoint_name(tmp_path / "Llama-3.2-1B") == "Llama-3.2-1B"
    assert checkpoint_name(Path()) == Path.cwd().name
