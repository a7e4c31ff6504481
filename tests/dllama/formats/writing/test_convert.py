"""A model written as a GGUF file is the same model, for us and for the gguf library."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from pathlib import Path

import gguf
import numpy as np
import pytest

from dllama.cli.model_file import load_tokenizer, metadata_of
from dllama.config import RopeScaling, RopeScalingKind
from dllama.formats import open_model
from dllama.formats.quantized import open_weights
from dllama.formats.writing.convert import converted_metadata, write_gguf
from dllama.qtypes import QType
from tests.checkpoints import write_checkpoint, write_spm_tokenizer
from tests.dllama.cli.test_commands import dllama
from tests.references.forward import tensor_values
from tests.toy_models import DEEPSEEK, EXPERTS, V2_LITE, llama4_layers, write_toy

FAMILIES = ("llama", "qwen2", "qwen3", "exaone4", "phi3", "glm4moe", "llama4", "deepseek2")
LLAMA3 = RopeScaling(RopeScalingKind.LLAMA3, 8.0, 64, 1.0, 4.0)
SCALINGS = {"llama": LLAMA3, "llama4": RopeScaling(RopeScalingKind.LLAMA3, 16.0, 64, 1.0, 1.0)}


def converted(model: Path, out: Path, quantize: str | None = None) -> Path:
    with closing(open_weights(model, quantize)) as source:
        write_gguf(source, metadata_of(str(model), None), out)
    return out


@pytest.mark.parametrize("arch", FAMILIES)
@pytest.mark.parametrize("quantize", [None, "q8_0"])
def test_the_file_is_the_same_model(tmp_path: Path, arch: str, quantize: str | None) -> None:
    fields = dict(DEEPSEEK if arch == "deepseek2" else EXPERTS.get(arch, {}))
    if arch == "llama4":
        fields |= {"attention_layers": llama4_layers(2), "shared_hidden_dim": 160}
    folder = write_checkpoint(
        tmp_path / "toy", arch=arch, qtype=QType.BF16, rope_scaling=SCALINGS.get(arch),
        tied=arch == "qwen2", fields=fields,
    )  # fmt: skip
    out = converted(folder, tmp_path / "toy.gguf", quantize)
    source, written = open_weights(folder, quantize), open_model(out)
    assert written.config == source.config
    assert written.tensors.keys() == source.tensors.keys()
    for name, info in source.tensors.items():
        if info.rows > 1:
            assert written.tensors[name].qtype is info.qtype
            assert np.array_equal(written.read(name), source.read(name)), name
        else:
            assert np.array_equal(tensor_values(written, name), tensor_values(source, name))


def test_the_gguf_library_reads_it(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "toy", qtype=QType.BF16, rope_scaling=LLAMA3)
    reader = gguf.GGUFReader(converted(folder, tmp_path / "toy.gguf"))
    theirs = gguf.GGUFReader(write_toy(tmp_path / "other.gguf", qtype=QType.BF16))
    assert {t.name for t in reader.tensors} - {t.name for t in theirs.tensors} == {
        "rope_freqs.weight"
    }
    assert not [key for key in reader.fields if "rope.scaling" in key]
    missing = {key for key in theirs.fields if key not in reader.fields}
    assert missing <= {"tokenizer.ggml.unknown_token_id"}
    by_name = {t.name: t for t in theirs.tensors}
    for tensor in reader.tensors:
        if len(tensor.shape) == 2:
            assert tensor.data.tobytes() == by_name[tensor.name].data.tobytes(), tensor.name


def test_latent_attention_is_written_as_llama_cpp_has_it(tmp_path: Path) -> None:
    """One key/value head of the kept rows, the sizes of heads beside it, their matrices apart."""
    fields = DEEPSEEK | V2_LITE
    folder = write_checkpoint(tmp_path / "toy", arch="deepseek2", fields=fields)
    reader = gguf.GGUFReader(converted(folder, tmp_path / "toy.gguf"))
    said = {
        key.removeprefix("deepseek2."): field.contents()
        for key, field in reader.fields.items()
        if key.startswith("deepseek2.")
    }
    wanted = {
        "attention.head_count_kv": 1, "attention.key_length": 40, "attention.value_length": 32,
        "attention.key_length_mla": 40, "attention.value_length_mla": 32,
        "attention.kv_lora_rank": 32, "rope.dimension_count": 8, "expert_gating_func": 1,
        "leading_dense_block_count": 1, "rope.scaling.type": "yarn",
    }  # fmt: skip
    assert {key: said[key] for key in wanted} == wanted
    assert said["rope.scaling.yarn_log_multiplier"] == pytest.approx(0.08994, rel=1e-3)
    assert not {"rope.scaling.attn_factor", "attention.q_lora_rank"} & said.keys()
    shapes = {t.name: tuple(map(int, t.shape)) for t in reader.tensors}
    assert shapes["blk.0.attn_k_b.weight"] == (32, 32, 4)  # the inner side first
    assert shapes["blk.1.attn_v_b.weight"] == (32, 32, 4)
    assert "blk.0.attn_q.weight" in shapes and "blk.0.attn_kv_b.weight" not in shapes


@pytest.mark.parametrize("kind", ["bpe", "spm"])
def test_its_tokenizer_and_template_are_the_same(tmp_path: Path, kind: str) -> None:
    """With as many tokens as the embedding has rows, which llama.cpp asks for."""
    folder = write_checkpoint(tmp_path / "toy", vocab_size=640, tokenizer="bpe")
    if kind == "spm":
        scheme = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first"}
        write_spm_tokenizer(folder, 600, scheme)
    out = converted(folder, tmp_path / "toy.gguf")
    ours, theirs = load_tokenizer(str(folder), None), load_tokenizer(str(out), None)
    assert theirs.vocab_size == 640
    for text in ("Hello world", " a<|im_end|> b", "é日"):
        ids = ours.encode(text, add_special=True, parse_special=True)
        assert theirs.encode(text, add_special=True, parse_special=True) == ids
    assert ours.chat_templates == theirs.chat_templates
    assert (ours.eos_id, ours.bos_id, ours.eog_ids) == (
        theirs.eos_id, theirs.bos_id, theirs.eog_ids
    )  # fmt: skip


def test_a_gguf_file_is_quantized_anew(tmp_path: Path) -> None:
    toy = write_toy(tmp_path / "toy.gguf", qtype=QType.F32)
    out = converted(toy, tmp_path / "small.gguf", "q8_0")
    with closing(open_model(out)) as small, closing(open_weights(toy, "q8_0")) as wanted:
        assert replace(small.config, name="") == replace(wanted.config, name="")
        for name, info in wanted.tensors.items():
            assert np.array_equal(small.read(name), wanted.read(name)), name
            assert small.tensors[name] == info


def test_the_command_writes_a_file_once(tmp_path: Path) -> None:
    folder, out = write_checkpoint(tmp_path / "toy"), tmp_path / "toy.gguf"
    first = dllama("convert", folder, out, "--type", "q4_0")
    assert first.returncode == 0, first.stderr
    assert "wrote" in first.stderr and open_model(out).tensors["layers.0.wq"].qtype is QType.Q4_0
    again = dllama("convert", folder, out)
    assert again.returncode == 1 and "is there already" in " ".join(again.stderr.split())
    assert list(tmp_path.glob("*.partial")) == []


def test_the_type_that_is_named_is_made_of_any_floats(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "toy", qtype=QType.BF16)
    done = dllama("convert", folder, tmp_path / "half.gguf", "--type", "f16")
    assert done.returncode == 0, done.stderr
    with closing(open_model(tmp_path / "half.gguf")) as half, closing(open_model(folder)) as whole:
        name = "layers.0.wq"
        assert half.tensors[name].qtype is QType.F16
        assert half.tensors[name].rows == whole.tensors[name].rows


def test_parts_become_one_file(tmp_path: Path) -> None:
    toy = write_toy(tmp_path / "toy.gguf", qtype=QType.F32)
    metadata = {**metadata_of(str(toy), None), "split.no": 0, "split.count": 3}
    metadata["split.tensors.count"] = 9
    with closing(open_model(toy)) as source:
        write_gguf(source, metadata, tmp_path / "whole.gguf")
    with closing(open_model(tmp_path / "whole.gguf")) as whole, closing(open_model(toy)) as wanted:
        assert whole.tensors.keys() == wanted.tensors.keys()


def test_layers_that_are_not_written_are_not_counted(tmp_path: Path) -> None:
    toy = write_toy(tmp_path / "toy.gguf", arch="glm4moe")
    with closing(open_model(toy)) as source:
        n, arch = source.config.n_layers, source.config.arch
        metadata = {**metadata_of(str(toy), None), f"{arch}.block_count": n + 1}
        metadata |= {f"{arch}.nextn_predict_layers": 1, f"{arch}.each": np.arange(n + 1)}
        told = converted_metadata(metadata, source.config, QType.F32)
    assert told[f"{arch}.block_count"] == n and f"{arch}.nextn_predict_layers" not in told
    assert np.asarray(told[f"{arch}.each"]).tolist() == list(range(n))
