"""Models of other kinds are refused by what they are, in full sentences."""

from __future__ import annotations

import json
from pathlib import Path

import gguf
import numpy as np
import pytest

from dllama.errors import ModelFileError
from dllama.formats import open_model
from dllama.inspect.describe import describe
from dllama.models import FAMILIES
from dllama.models.unsupported import KINDS
from tests.checkpoints import write_checkpoint, write_safetensors


def write_foreign(path: Path, arch: str, *tensors: str, kind: str | None = None) -> Path:
    """A GGUF file of an architecture, with some tensors of any size."""
    writer = gguf.GGUFWriter(str(path), arch)
    if kind is not None:
        writer.add_type(kind)
    for name in tensors:
        writer.add_tensor(name, np.zeros((32, 32), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.mark.parametrize(
    ("arch", "tensor", "said"),
    [
        ("bert", "token_embd.weight", "an encoder, which makes vectors of texts"),
        ("flux", "double_blocks.0.img_attn.qkv.weight", "a diffusion model, which makes pictures"),
        ("clip", "v.blk.0.attn_q.weight", r"\(mmproj\), name the file of its text"),
        (
            "deepseek32",
            "token_embd.weight",
            r"DeepSeek-V3\.2, .* \(sparse attention\), which is not",
        ),
        ("mamba", "token_embd.weight", "states of a kind that is not computed"),
        ("granitehybrid", "token_embd.weight", "states of a kind that is not computed"),
    ],
)
def test_a_file_of_another_kind_says_which(
    tmp_path: Path, arch: str, tensor: str, said: str
) -> None:
    """Also where it lacks what a model of text has."""
    path = write_foreign(tmp_path / "m.gguf", arch, tensor)
    with pytest.raises(ModelFileError, match=f"is of the architecture '{arch}': .*{said}") as found:
        open_model(path)
    assert "This version runs Llama 2" in str(found.value)
    assert describe(path).unsupported == str(found.value)


def test_adapters_and_other_files_are_no_models(tmp_path: Path) -> None:
    adapter = write_foreign(
        tmp_path / "a.gguf", "llama", "blk.0.attn_q.weight.lora_a", kind="adapter"
    )
    with pytest.raises(ModelFileError, match="is a LoRA adapter, and not a model; merge it"):
        open_model(adapter)
    (tmp_path / "lora").mkdir()
    (tmp_path / "lora" / "adapter_config.json").write_text("{}")
    weights = write_safetensors(tmp_path / "lora" / "a.safetensors", {"x": ("F32", (2,), bytes(8))})
    for path in (tmp_path / "lora", weights):
        with pytest.raises(ModelFileError, match="lora is a LoRA adapter, and not a model"):
            open_model(path)


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ({"model_type": "zebra"}, "'zebra', which is unknown here. This version runs Llama 2"),
        ({"model_type": "bert"}, "'bert': an encoder"),
        ({"model_type": "t5"}, "'t5': a model of an encoder and a decoder"),
        ({"model_type": "vit"}, "'vit': a model that sees pictures and writes no text"),
        ({"model_type": "clip", "text_config": {"model_type": "clip_text_model"}},
         "'clip': a model that sees pictures"),
        ({"model_type": "deepseek_v32"}, r"'deepseek_v32': DeepSeek-V3\.2, .*sparse attention"),
        ({"model_type": "chatglm"}, r"'chatglm': ChatGLM, .* whose name ends in -hf"),
        ({"model_type": "kimi_k25", "text_config": {"model_type": "kimi_k2"}},
         r"'kimi_k25': Kimi-K2\.5, which sees pictures, and of which the text is not computed"),
        ({"model_type": None, "_class_name": "UNet2DConditionModel"},
         "diffusers' class 'UNet2DConditionModel', a part of a model that makes pictures"),
    ],
)  # fmt: skip
def test_a_folder_of_another_kind_says_which(
    tmp_path: Path, said: dict[str, object], why: str
) -> None:
    folder = write_checkpoint(tmp_path / "toy")
    whole = json.loads((folder / "config.json").read_text()) | said
    (folder / "config.json").write_text(json.dumps(whole))
    with pytest.raises(ModelFileError, match=why):
        open_model(folder)


def test_diffusion_models_are_known_without_a_config(tmp_path: Path) -> None:
    tensors = {"model.diffusion_model.in.weight": ("F32", (2,), bytes(8))}
    alone = write_safetensors(tmp_path / "sd.safetensors", tensors)
    with pytest.raises(ModelFileError, match=r"is a diffusion model.*'model\.diffusion_model\.in"):
        open_model(alone)
    (tmp_path / "flux").mkdir()
    (tmp_path / "flux" / "model_index.json").write_text("{}")
    with pytest.raises(ModelFileError, match="is a model of diffusers, which makes pictures"):
        open_model(tmp_path / "flux")


def test_nothing_that_runs_is_said_not_to() -> None:
    """But for GLM-4, whose files are called as its folders in a layout that is not read."""
    known = {kind for family in FAMILIES.values() for kind in (family.arch, *family.hf_types)}
    assert known & KINDS.keys() == {"chatglm"}
