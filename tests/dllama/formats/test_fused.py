"""GGUF files whose converter put queries, keys and values into one tensor, and both halves of the
experts: they hold what files with a tensor for each hold."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dllama.errors import ModelFileError
from dllama.formats import open_model
from dllama.formats.gguf import GgufFile
from dllama.formats.writing.gguf_writer import gguf_stream
from dllama.qtypes import QType
from dllama.weight_source import TensorInfo
from tests.dllama.formats.crafted import rewrite
from tests.toy_models import EXPERTS, write_toy

QKV = ("attn_q", "attn_k", "attn_v")
TOYS: dict[str, tuple[dict[str, object], dict[str, tuple[str, ...]]]] = {
    "llama": ({}, {"attn_qkv.weight": QKV}),
    "qwen2": ({"arch": "qwen2"}, {"attn_qkv.weight": QKV, "attn_qkv.bias": QKV}),
    "biases": ({"arch": "qwen2"}, {"attn_qkv.bias": QKV}),
    "q4_k": ({"qtype": QType.Q4_K, "dim": 256, "hidden_dim": 256}, {"attn_qkv.weight": QKV}),
    # Whose own tensor of that name, of fewer rows, is in another order.
    "delta nets": (
        {"arch": "qwen35", "n_layers": 4, "n_heads": 16, "n_kv_heads": 8, "head_dim": 16},
        {"attn_qkv.weight": QKV},
    ),
    "experts": (
        {"arch": "qwen3moe", **EXPERTS["qwen3moe"]},
        {"attn_qkv.weight": QKV, "ffn_gate_up_exps.weight": ("ffn_gate_exps", "ffn_up_exps")},
    ),
}  # fmt: skip


def fuse(source: Path, target: Path, joints: dict[str, tuple[str, ...]]) -> Path:
    """Puts the named tensors of every layer but the last into one, those of experts for each."""
    file = GgufFile(source)
    last = str(len(layers_of(file)) - 1)
    parts: dict[str, list[str]] = {}
    for name in file.tensors:
        layer, _, own = name.removeprefix("blk.").partition(".")
        joint = next(
            (joint for joint, names in joints.items()
             if own.endswith(joint[joint.index(".") :]) and own.partition(".")[0] in names),
            None,
        )  # fmt: skip
        is_kept = joint is None or layer == last
        parts.setdefault(name if is_kept else f"blk.{layer}.{joint}", []).append(name)
    infos, data = [], []
    for name, names in parts.items():
        found = [file.tensors[part] for part in names]
        n = 8 if "_exps." in name else 1
        is_bias = name.endswith("bias") and len(found) > 1
        rows = 1 if is_bias else sum(each.rows for each in found)
        cols = sum(each.cols for each in found) if is_bias else found[0].cols
        infos.append(TensorInfo(name, QType(found[0].type_id), rows, cols, n_experts=n))
        raw = [
            np.frombuffer(bytes(each.file.buffer[each.offset :][: each.n_bytes]), np.uint8)
            for each in found
        ]
        data.append(np.concatenate([each.reshape(n, -1) for each in raw], axis=1).ravel())
    with gguf_stream(target, dict(file.metadata), infos) as out:
        for each in data:
            out.write(each)
    file.close()
    return target


def layers_of(file: GgufFile) -> set[str]:
    return {name.split(".")[1] for name in file.tensors if name.startswith("blk.")}


@pytest.mark.parametrize("name", TOYS)
def test_it_holds_what_a_file_of_single_tensors_holds(tmp_path: Path, name: str) -> None:
    toy, joints = TOYS[name]
    plain = write_toy(tmp_path / "toy.gguf", **toy)  # type: ignore[arg-type]
    fused = fuse(plain, tmp_path / "fused.gguf", joints)
    expected, found = open_model(plain), open_model(fused)
    assert found.config == expected.config
    assert set(GgufFile(fused).tensors) != set(GgufFile(plain).tensors)
    for tensor in expected.tensors:
        assert found.tensors[tensor] == expected.tensors[tensor]
        np.testing.assert_array_equal(found.read(tensor), expected.read(tensor))


def test_one_of_another_size_is_refused(tmp_path: Path) -> None:
    toy, joints = TOYS["llama"]
    plain = write_toy(tmp_path / "toy.gguf", **toy)  # type: ignore[arg-type]
    fused = fuse(plain, tmp_path / "fused.gguf", joints)
    with pytest.raises(ModelFileError, match=r"blk\.0\.attn_qkv\.weight has"):
        open_model(
            rewrite(fused, tmp_path / "bad.gguf", metadata={"llama.attention.head_count_kv": 4})
        )
