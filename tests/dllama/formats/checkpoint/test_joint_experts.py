"""Experts that a checkpoint has in one tensor, as gpt-oss: read as the GGUF file of these weights,
and its MXFP4 blocks with the very values that they stand for."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dllama.config import RopeScaling, RopeScalingKind
from dllama.errors import ModelFileError
from dllama.formats import open_model
from dllama.formats.checkpoint.joint_experts import JointMxfp4
from dllama.formats.writing.convert import write_gguf
from dllama.qtypes import QType
from dllama.sharding.pieces import read_piece, whole_model
from dllama.weight_source import WeightSource
from tests.checkpoints import Entry, write_checkpoint
from tests.references.forward import reference_logits, tensor_values
from tests.toy_models import EXPERTS, write_toy

FOURS = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6])
"""What four bits stand for (OCP Microscaling Formats, 5.3.3)."""
NAMES = ("mlp.experts.gate_up_proj", "mlp.experts.down_proj")
N_EXPERTS, DIM, HIDDEN = 8, 64, 160


def in_mxfp4(tensors: dict[str, Entry]) -> dict[str, np.ndarray]:
    """Puts MXFP4 in the place of all experts' matrices; returns their values, (experts, outputs,
    inputs)."""
    rng, values = np.random.default_rng(2), {}
    for name in [name for name in tensors if name.endswith(NAMES)]:
        _, (_, inputs, outputs), _ = tensors.pop(name)
        blocks = rng.integers(0, 256, (N_EXPERTS, outputs, inputs // 32, 16)).astype(np.uint8)
        scales = rng.integers(118, 124, blocks.shape[:3]).astype(np.uint8)
        tensors[f"{name}_blocks"] = ("U8", blocks.shape, blocks.tobytes())
        tensors[f"{name}_scales"] = ("U8", scales.shape, scales.tobytes())
        fours = np.stack([FOURS[blocks & 15], FOURS[blocks >> 4]], axis=-1)  # neighbours in a byte
        whole = fours.reshape(*blocks.shape[:3], 32) * 2.0 ** (scales[..., None] - 127.0)
        values[name] = whole.reshape(N_EXPERTS, outputs, inputs)
    return values


def folder_of(path: Path, qtype: QType = QType.F32, **more: object) -> Path:
    return write_checkpoint(
        path, arch="gpt-oss", qtype=qtype, fields=EXPERTS["gpt-oss"], **more,
        rope_scaling=RopeScaling(RopeScalingKind.YARN, 4.0, 64, is_rounded=False),
    )  # type: ignore[arg-type]  # fmt: skip


@pytest.fixture
def quantized(tmp_path: Path) -> tuple[WeightSource, dict[str, np.ndarray]]:
    values: dict[str, np.ndarray] = {}
    said = {"quant_method": "mxfp4", "modules_to_not_convert": ["model.layers.*.self_attn"]}
    folder = folder_of(
        tmp_path / "toy", QType.BF16, change=lambda tensors: values.update(in_mxfp4(tensors)),
        quantization_config=said, n_files=2, swiglu_limit=7.0,
    )  # fmt: skip
    return open_model(folder), values


@pytest.mark.parametrize("qtype", [QType.F32, QType.BF16])
def test_plain_numbers_are_those_of_gguf(tmp_path: Path, qtype: QType) -> None:
    source = open_model(folder_of(tmp_path / "toy", qtype))
    scaling = RopeScaling(RopeScalingKind.YARN, 4.0, 64, is_rounded=False)
    gguf = open_model(
        write_toy(tmp_path / "toy.gguf", arch="gpt-oss", qtype=qtype, rope_scaling=scaling)
    )
    assert replace(source.config, name="") == replace(gguf.config, name="")
    assert source.tensors.keys() == gguf.tensors.keys()
    for name, info in gguf.tensors.items():
        if info.rows > info.n_experts and not name.endswith("router"):
            assert source.tensors[name] == info
            assert np.array_equal(source.read(name), gguf.read(name)), name
    for name in ("layers.0.expert_b3", "layers.1.expert_w1", "layers.1.expert_w2"):
        n_rows = source.tensors[name].rows // N_EXPERTS
        cut = (range(n_rows // 3, n_rows), range(16, 48))
        if source.tensors[name].qtype is gguf.tensors[name].qtype:
            assert np.array_equal(source.read(name, *cut), gguf.read(name, *cut))
    if qtype is QType.F32:
        tokens = range(5, 25)
        assert np.array_equal(reference_logits(source, tokens), reference_logits(gguf, tokens))


def test_mxfp4_has_the_values_of_its_blocks(
    quantized: tuple[WeightSource, dict[str, np.ndarray]],
) -> None:
    source, values = quantized
    for layer in range(2):
        both, down = (values[f"model.layers.{layer}.{name}"] for name in NAMES)
        for name, wanted in (("w1", both[:, 0::2]), ("w3", both[:, 1::2]), ("w2", down)):
            ours = f"layers.{layer}.expert_{name}"
            info = source.tensors[ours]
            assert (info.qtype, info.n_experts) == (QType.MXFP4, N_EXPERTS)
            found = tensor_values(source, ours)
            assert np.array_equal(found, wanted.reshape(info.rows, info.cols)), ours
            n_rows = info.rows // N_EXPERTS
            whole = source.read(ours).reshape(N_EXPERTS, n_rows, -1)
            cut = source.read(ours, range(3, n_rows - 1), range(32, 64))
            assert np.array_equal(cut, whole[:, 3:-1, 17:34].reshape(len(cut), -1))


def test_experts_are_put_together_once_for_all_their_pieces(
    quantized: tuple[WeightSource, dict[str, np.ndarray]], monkeypatch: pytest.MonkeyPatch
) -> None:
    source, _ = quantized
    reads: list[str] = []
    read = JointMxfp4.read

    def counted(tensor: JointMxfp4, rows: range, cols: range) -> np.ndarray:
        reads.append(tensor.info.name)
        return read(tensor, rows, cols)

    monkeypatch.setattr(JointMxfp4, "read", counted)
    name = "layers.1.expert_w1"
    for tiled in whole_model(source.config, source.tensors):
        if tiled.cut.source_name == name:
            pieces = [read_piece(source, sized) for sized in tiled.sized()]
    assert len(pieces) == N_EXPERTS and reads == [name]
    whole = source.read(name).reshape(N_EXPERTS, *pieces[0].shape)
    assert all(np.array_equal(piece, mine) for piece, mine in zip(pieces, whole, strict=True))
    source.release(name)
    source.read(name)
    assert len(reads) == 2


def test_a_gguf_file_of_it_is_the_same_model(
    tmp_path: Path, quantized: tuple[WeightSource, dict[str, np.ndarray]]
) -> None:
    source, _ = quantized
    write_gguf(source, source.metadata, tmp_path / "toy.gguf")  # type: ignore[attr-defined]
    gguf = open_model(tmp_path / "toy.gguf")
    assert gguf.config == source.config
    for name in source.tensors:
        assert np.array_equal(tensor_values(gguf, name), tensor_values(source, name)), name


REFUSED = {
    r"down_proj_scales is U8 \[8, 64, 4\]; expected U8 \[8, 64, 5\]": ("_scales", (8, 64, 4)),
    r"down_proj_blocks is U8 \[8, 64, 5, 8\]; expected U8": ("_blocks", (8, 64, 5, 8)),
}


@pytest.mark.parametrize(("sentence", "damage"), REFUSED.items(), ids=["scales", "blocks"])
def test_other_shapes_are_refused(
    tmp_path: Path, sentence: str, damage: tuple[str, tuple[int, ...]]
) -> None:
    suffix, shape = damage

    def change(tensors: dict[str, Entry]) -> None:
        in_mxfp4(tensors)
        raw = bytes(int(np.prod(shape)))
        tensors[f"model.layers.1.mlp.experts.down_proj{suffix}"] = ("U8", shape, raw)

    with pytest.raises(ModelFileError, match=sentence):
        open_model(folder_of(tmp_path / "toy", change=change))


@pytest.mark.parametrize("said", [{"swiglu_limit": 5.0}, {"swiglu_alpha": 1.0}], ids=str)
def test_other_gates_are_refused(tmp_path: Path, said: dict[str, object]) -> None:
    with pytest.raises(ModelFileError, match=next(iter(said))):
        open_model(folder_of(tmp_path / "toy", **said))


def test_a_missing_tensor_is_named(tmp_path: Path) -> None:
    def change(tensors: dict[str, Entry]) -> None:
        del tensors["model.layers.1.mlp.experts.gate_up_proj"]

    with pytest.raises(ModelFileError, match=r"no tensor 'model\.layers\.1\..*gate_up_proj'"):
        open_model(folder_of(tmp_path / "toy", change=change))
