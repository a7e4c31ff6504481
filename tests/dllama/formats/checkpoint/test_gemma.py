"""Folders of Gemma: norms' weights are less one there, and the first ones of Gemma 3 say little."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dllama.config import LayerAttention, RopeScaling, RopeScalingKind
from dllama.errors import ModelFileError
from dllama.formats import open_model
from tests.checkpoints import Entry, write_checkpoint
from tests.references.forward import reference_logits
from tests.toy_models import write_toy

GELU = {"hidden_act": None, "hidden_activation": "gelu_pytorch_tanh"}
GEMMA2 = {
    "attention_layers": (LayerAttention(20), LayerAttention()), "attention_scale": 24**-0.5,
    "attention_softcap": 3.0, "final_softcap": 0.0,
}  # fmt: skip
GEMMA2_SAID = {
    "query_pre_attn_scalar": 24, "attn_logit_softcapping": 3.0, "final_logit_softcapping": None,
}  # fmt: skip
GEMMA3 = {
    "attention_layers": (LayerAttention(20, has_local_rope=True), LayerAttention()),
    "local_rope_theta": 100.0, "attention_scale": 16**-0.5,
    "rope_scaling": RopeScaling(RopeScalingKind.LINEAR, 2.0, 256),
}  # fmt: skip
FULL = {"rope_type": "linear", "factor": 2.0, "rope_theta": 10000.0}
LOCAL = {"rope_type": "default", "rope_theta": 100.0}
BY_KIND = {"rope_parameters": {"full_attention": FULL, "sliding_attention": LOCAL}}
OLDER = {"rope_scaling": GEMMA3["rope_scaling"], "rope_local_base_freq": 100.0}
KINDS = {"layer_types": ["sliding_attention", "full_attention"]}


@pytest.mark.parametrize(
    ("arch", "fields", "said"),
    [
        ("gemma2", GEMMA2, GEMMA2_SAID),
        ("gemma3", GEMMA3, {**BY_KIND, **KINDS, "query_pre_attn_scalar": 16}),
        ("gemma3", GEMMA3, {**OLDER, "sliding_window_pattern": 2, "query_pre_attn_scalar": 16}),
    ],
    ids=["gemma2", "gemma3", "gemma3 as it was"],
)
def test_a_folder_is_the_same_model_as_a_gguf_file(
    tmp_path: Path, arch: str, fields: dict[str, object], said: dict[str, object]
) -> None:
    gguf = open_model(write_toy(tmp_path / "toy.gguf", arch=arch, **fields))  # type: ignore[arg-type]
    own = {key: value for key, value in fields.items() if key != "rope_scaling"}
    folder = write_checkpoint(tmp_path / "toy", arch=arch, fields=own, **GELU, **said)
    source = open_model(folder)
    assert replace(source.config, name="") == replace(gguf.config, name="")
    assert source.tensors.keys() == gguf.tensors.keys()
    got, want = (reference_logits(each, range(5, 30)) for each in (source, gguf))
    np.testing.assert_allclose(got, want, atol=1e-5 * np.abs(want).max())


@pytest.mark.parametrize("prefix", ["language_model.model.", "model.language_model."])
def test_the_text_part_of_gemma3_says_little(tmp_path: Path, prefix: str) -> None:
    def change(tensors: dict[str, Entry]) -> None:
        for name in list(tensors):
            tensors[name.replace("model.", prefix, 1)] = tensors.pop(name)
        other = ("F32", (2,), bytes(8))
        tensors |= {"vision_tower.a.weight": other, "model.multi_modal_projector.b": other}

    folder = write_checkpoint(
        tmp_path / "toy", arch="gemma3", n_layers=7, dim=32, hidden_dim=32, n_heads=8,
        n_kv_heads=4, head_dim=256, tied=True, change=change,
    )  # fmt: skip
    text = {
        "hidden_size": 32, "intermediate_size": 32, "model_type": "gemma3_text",
        "num_hidden_layers": 7, "rope_scaling": {"factor": 8.0, "rope_type": "linear"},
        "sliding_window": 1024,
    }  # fmt: skip
    said = {"model_type": "gemma3", "text_config": text, "vision_config": {}}
    (folder / "config.json").write_text(json.dumps(said))
    config = open_model(folder).config
    local = LayerAttention(1024, has_local_rope=True)
    assert config.attention_layers == (*(local,) * 5, LayerAttention(), local)
    assert (config.max_seq_len, config.n_heads, config.n_kv_heads) == (131072, 8, 4)
    assert (config.rope_theta, config.local_rope_theta, config.is_tied) == (1e6, 10000.0, True)
    assert config.rope_scaling == RopeScaling(RopeScalingKind.LINEAR, 8.0, 131072, 1.0, 4.0)
    assert config.attention_scale == 256**-0.5 and config.embedding_scale == 32**0.5


def test_what_is_not_computed_is_refused(tmp_path: Path) -> None:
    scaled = {"rope_parameters": {"full_attention": FULL, "sliding_attention": FULL}}
    for i, (said, why) in enumerate(
        [
            ({"use_bidirectional_attention": True}, "use_bidirectional_attention is 'True'"),
            ({"hidden_activation": "gelu"}, "hidden_activation is 'gelu'; this version computes"),
            (scaled, "rope_type of sliding_attention"),
        ]
    ):
        folder = write_checkpoint(tmp_path / str(i), arch="gemma3", **{**GELU, **said})
        with pytest.raises(ModelFileError, match=why):
            open_model(folder)
