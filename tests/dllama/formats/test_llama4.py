"""What files of Llama 4 say, and what they leave out."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from dllama.config import LayerAttention, QueryGrowth
from dllama.errors import ModelFileError
from dllama.formats import open_model
from dllama.models.llama4 import GROWS, GROWTH_LENGTH, GROWTH_SCALE, NORMS
from dllama.models.windows import WINDOW
from tests.checkpoints import Entry, write_checkpoint
from tests.dllama.formats.crafted import rewrite
from tests.toy_models import EXPERTS, llama4_layers, write_toy

FIELDS = {**EXPERTS["llama4"], "shared_hidden_dim": 160, "attention_layers": llama4_layers(4)}


def test_a_gguf_file_leaves_out_what_all_of_them_have(tmp_path: Path) -> None:
    toy = write_toy(tmp_path / "toy.gguf", arch="llama4", n_layers=4)
    unsaid = (WINDOW, GROWS, GROWTH_LENGTH, GROWTH_SCALE, NORMS)
    drop = tuple(f"llama4.{key}" for key in unsaid)
    config = open_model(rewrite(toy, tmp_path / "less.gguf", drop=drop)).config
    chunk = LayerAttention(8192, is_chunked=True)
    assert config.attention_layers == (chunk, chunk, chunk, LayerAttention(is_rotated=False))
    assert config.query_growth == QueryGrowth(0.1, 8192) and config.has_plain_qk_norm
    assert [config.is_mixture(i) for i in range(4)] == [False, True, False, True]
    assert (config.n_other_layers, config.dense_hidden_dim) == (2, 224)
    assert config.shared_hidden_dim == config.hidden_dim == 160
    metadata = {"llama4.attention.sliding_window_pattern": np.array([1, 0, 1, 1], np.bool_)}
    with pytest.raises(ModelFileError, match="positions, chunks or experts"):
        open_model(rewrite(toy, tmp_path / "other.gguf", metadata=metadata))


def test_the_text_part_of_a_model_that_sees_pictures(tmp_path: Path) -> None:
    def change(tensors: dict[str, Entry]) -> None:
        for name in list(tensors):
            tensors[f"language_model.{name}"] = tensors.pop(name)
        other = ("F32", (2,), bytes(8))
        tensors |= {"vision_model.a.weight": other, "multi_modal_projector.linear_1.weight": other}

    folder = write_checkpoint(
        tmp_path / "toy", arch="llama4", n_layers=4, fields=FIELDS, change=change
    )
    text = json.loads((folder / "config.json").read_text())
    said = {"model_type": "llama4", "text_config": text, "vision_config": {}}
    (folder / "config.json").write_text(json.dumps(said))
    source = open_model(folder)
    gguf = open_model(write_toy(tmp_path / "toy.gguf", arch="llama4", n_layers=4))
    for name in ("layers.1.expert_w1", "layers.3.expert_w3", "layers.3.expert_w2", "layers.0.wq"):
        assert np.array_equal(source.read(name), gguf.read(name)), name
        assert np.array_equal(
            source.read(name, range(8, 24), range(16, 32)),
            gguf.read(name, range(8, 24), range(16, 32)),
        )


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ({"no_rope_layers": [1, 0, 1, 0]}, "positions, chunks or experts"),
        ({"moe_layers": [0, 1]}, "positions, chunks or experts"),
        ({"layer_types": ["full_attention"] * 4}, "without chunks"),
        ({"attention_chunk_size": None}, "without chunks"),
        ({"num_local_experts": 0}, "without experts"),
        ({"layer_types": ["sliding_attention"] * 4}, "computes full_attention and chunked"),
    ],
    ids=str,
)
def test_what_is_not_computed_is_refused(tmp_path: Path, said: dict[str, object], why: str) -> None:
    folder = write_checkpoint(tmp_path / "toy", arch="llama4", n_layers=4, fields=FIELDS, **said)
    with pytest.raises(ModelFileError, match=why):
        open_model(folder)
