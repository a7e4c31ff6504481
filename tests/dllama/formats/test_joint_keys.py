"""Older GGUF files of latent attention: the matrices of keys and values are in one tensor."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.writers.decode import decode
from dllama.errors import ModelFileError
from dllama.formats import open_model
from dllama.formats.gguf import GgufFile
from dllama.formats.writing.convert import write_gguf
from dllama.formats.writing.encode import encode
from dllama.formats.writing.gguf_writer import gguf_stream
from dllama.qtypes import QType
from dllama.weight_source import TensorInfo
from tests.dllama.formats.crafted import rewrite
from tests.references.forward import tensor_values
from tests.toy_models import write_toy

OLDER = {"attention.head_count_kv": 4, "attention.key_length": 40, "attention.value_length": 32}
NEWER = ("attention.key_length_mla", "attention.value_length_mla")


def joint_values(file: GgufFile, layer: int) -> np.ndarray:
    """What attn_kv_b holds: of each head its rows of keys, then those of values; (256, 32)."""
    keys, values = (
        file.tensor(f"blk.{layer}.attn_{name}_b.weight").file.view(
            file.tensor(f"blk.{layer}.attn_{name}_b.weight").offset, 4 * 32 * 32 * 4, name
        )
        for name in "kv"
    )
    up = np.frombuffer(keys, np.float32).reshape(4, 32, 32).transpose(0, 2, 1)
    down = np.frombuffer(values, np.float32).reshape(4, 32, 32)
    return np.concatenate([up, down], axis=1).reshape(256, 32)


def write_older(toy: Path, out: Path, qtype: QType) -> Path:
    """Writes a toy as older converters did, with `qtype` for the joint tensor."""
    file = GgufFile(toy)
    kept = [
        t for name, t in file.tensors.items() if not name.endswith(("k_b.weight", "v_b.weight"))
    ]
    infos = [TensorInfo(t.name, QType(t.type_id), t.rows, t.cols) for t in kept]
    joint = [TensorInfo(f"blk.{i}.attn_kv_b.weight", qtype, 256, 32) for i in range(2)]
    said = {key: v for key, v in file.metadata.items() if not key.endswith(NEWER)}
    said |= {f"deepseek2.{key}": value for key, value in OLDER.items()}
    with gguf_stream(out, said, infos + joint) as stream:
        for tensor in kept:
            raw = tensor.file.buffer[tensor.offset :][: tensor.n_bytes]
            stream.write(np.frombuffer(bytes(raw), np.uint8))
        for layer in range(2):
            stream.write(encode(joint_values(file, layer), qtype))
    file.close()
    return out


@pytest.mark.parametrize("qtype", [QType.F32, QType.BF16, QType.Q8_0], ids=lambda t: t.name)
def test_both_kinds_of_files_are_the_same_model(tmp_path: Path, qtype: QType) -> None:
    toy = write_toy(tmp_path / "toy.gguf", arch="deepseek2")
    older, newer = open_model(write_older(toy, tmp_path / "older.gguf", qtype)), open_model(toy)
    assert older.config == newer.config and older.tensors.keys() == newer.tensors.keys()
    for name in newer.tensors:
        ours, wanted = (tensor_values(each, name) for each in (older, newer))
        if name.endswith(("wk_b", "wv_b")):
            if name.endswith("wk_b"):  # the blocks of the joint tensor are those of its own rows
                wanted = wanted.reshape(4, 32, 32).transpose(0, 2, 1).reshape(-1, 32)
            wanted = decode(encode(wanted.astype(np.float32), qtype), qtype)
            if name.endswith("wk_b"):
                wanted = wanted.reshape(4, 32, 32).transpose(0, 2, 1).reshape(-1, 32)
        assert np.array_equal(ours, wanted), name
    turned = QType.F32 if qtype is QType.Q8_0 else qtype
    assert older.tensors["layers.1.wk_b"].qtype is turned
    assert older.tensors["layers.1.wv_b"].qtype is qtype


def test_an_older_file_is_written_as_a_newer_one(tmp_path: Path) -> None:
    toy = write_toy(tmp_path / "toy.gguf", arch="deepseek2")
    older = open_model(write_older(toy, tmp_path / "older.gguf", QType.Q8_0))
    write_gguf(older, GgufFile(tmp_path / "older.gguf").metadata, tmp_path / "newer.gguf")
    newer = open_model(tmp_path / "newer.gguf")
    assert newer.config == replace(older.config, name=newer.config.name)
    assert {t for t in GgufFile(tmp_path / "newer.gguf").tensors if "_b.weight" in t} >= {
        "blk.0.attn_k_b.weight", "blk.1.attn_v_b.weight"
    }  # fmt: skip
    for name, info in older.tensors.items():
        assert newer.tensors[name].qtype is info.qtype
        assert np.array_equal(newer.read(name), older.read(name)), name


def test_queries_that_grow_with_their_positions_are_refused(tmp_path: Path) -> None:
    """As those of other models that are made like DeepSeek's."""
    toy = write_toy(tmp_path / "toy.gguf", arch="deepseek2")
    said = {"deepseek2.attention.temperature_scale": 0.1}
    with pytest.raises(ModelFileError, match=r"attention\.temperature_scale is 0"):
        open_model(rewrite(toy, tmp_path / "grown.gguf", metadata=said))
