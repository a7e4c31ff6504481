"""The .m reader: headers as distributed-llama writes them, and headers nobody should believe."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from dllama.config import RopeScaling, RopeScalingKind
from dllama.errors import ModelFileError
from dllama.formats import open_model
from dllama.formats.m_file import MFileSource
from dllama.formats.m_layout import MKey
from dllama.qtypes import QType
from tests.references.forward import tensor_values
from tests.toy_models import write_toy


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_toy(tmp_path_factory.mktemp("m") / "toy.m", fmt="m", qtype=QType.Q4_0)


def with_header(source: Path, target: Path, changes: Mapping[int, int | None]) -> Path:
    """A copy with header values changed, added, or (None) left out; the tensors are the same."""
    raw = source.read_bytes()
    size = struct.unpack_from("<i", raw, 4)[0]
    values: dict[int, int | None] = dict(struct.iter_unpack("<ii", raw[8:size]))
    pairs = [(k, v) for k, v in (values | dict(changes)).items() if v is not None]
    head = raw[:4] + struct.pack("<i", 8 + 8 * len(pairs))
    target.write_bytes(head + b"".join(struct.pack("<ii", *pair) for pair in pairs) + raw[size:])
    return target


def test_a_file_built_by_hand_is_read_as_the_format_says(tmp_path: Path) -> None:
    """One layer, one head of 2 values, F32: every tensor is a run of consecutive numbers."""
    header = {0: 0, 1: 0xABCD00, 2: 2, 3: 3, 4: 1, 5: 1, 6: 1, 7: 0, 8: 0, 9: 4, 10: 8, 13: 0}
    pairs = b"".join(struct.pack("<ii", k, v) for k, v in header.items())
    sizes = {"embed": 8, "wq": 4, "wk": 4, "wv": 4, "wo": 4, "w1": 6, "w2": 6, "w3": 6}
    sizes |= {"norm1": 2, "norm2": 2, "norm": 2, "wcls": 8}
    values = np.arange(sum(sizes.values()), dtype="<f4")
    head = struct.pack("<ii", 0x0A00ABCD, 8 + len(pairs)) + pairs
    (tmp_path / "hand.m").write_bytes(head + values.tobytes())
    source = open_model(tmp_path / "hand.m")
    config = source.config
    assert (config.rope_theta, config.norm_epsilon, config.head_dim) == (10000.0, 1e-5, 2)
    at = 0
    for name, n in sizes.items():
        ours = name if name in source.tensors else f"layers.0.{name}"
        assert np.array_equal(tensor_values(source, ours).reshape(-1), np.arange(at, at + n)), name
        at += n


def test_llama3_scaling_is_read(toy: Path, tmp_path: Path) -> None:
    scaling = RopeScaling(RopeScalingKind.LLAMA3, 8.0, 64, 1.0, 4.0)
    write_toy(tmp_path / "a.m", fmt="m", rope_scaling=scaling, rope_theta=500000.0)
    config = open_model(tmp_path / "a.m").config
    assert config.rope_scaling == scaling
    assert config.rope_theta == 500000.0


def test_qwen3_ignores_scaling_and_keeps_row_order(tmp_path: Path) -> None:
    qwen = write_toy(tmp_path / "qwen.m", fmt="m", arch="qwen3")
    odd = with_header(qwen, tmp_path / "odd.m", {MKey.ROPE_SCALING_FACTOR: 8, MKey.ROPE_TYPE: 2})
    source, plain = open_model(odd), open_model(qwen)
    assert source.config.rope_scaling is None
    assert source.config.norm_epsilon == 1e-6
    assert np.array_equal(source.read("layers.0.wq"), plain.read("layers.0.wq"))


def test_llama_with_falcon_rope_is_half_split_already(toy: Path, tmp_path: Path) -> None:
    falcon = open_model(with_header(toy, tmp_path / "f.m", {MKey.ROPE_TYPE: 1}))
    order = falcon.read("layers.0.wq").reshape(4, 8, 2, -1).swapaxes(1, 2).reshape(64, -1)
    assert np.array_equal(order, open_model(toy).read("layers.0.wq"))


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({MKey.N_EXPERTS: 8}, "mixture of experts"),
        ({MKey.ARCH_TYPE: 0xABCD02}, "mixture of experts"),
        ({MKey.ARCH_TYPE: 7}, "arch_type is 7; known are"),
        ({MKey.HIDDEN_ACT: 0}, "not SiLU"),
        ({MKey.WEIGHTS_FLOAT_TYPE: None}, "weights_float_type is None"),
        ({MKey.WEIGHTS_FLOAT_TYPE: 9}, "weights_float_type is 9"),
        ({MKey.NORM_EPSILON: 4}, "norm_epsilon is 4"),
        ({MKey.DIM: None}, "dim is missing"),
        ({MKey.DIM: -64}, "dim is -64"),
        ({MKey.HEAD_DIM: None, MKey.N_HEADS: 5}, "64 values do not divide into 5 heads"),
        ({MKey.N_KV_HEADS: 3}, "4 heads cannot share 3"),
        ({MKey.HEAD_DIM: 15}, "no rotary pairs"),
        ({MKey.HIDDEN_DIM: 161}, "does not end at a block of Q4_0"),
        ({MKey.HIDDEN_DIM: 192}, "is truncated: it has"),
        ({MKey.N_LAYERS: 1}, "is too long: it has"),
        ({MKey.N_LAYERS: 2**31 - 1}, "is truncated"),
        ({MKey.ROPE_TYPE: 3}, "rope_type is 3"),
        ({MKey.ROPE_THETA: 1}, "rope_theta is 1"),
        ({MKey.ROPE_SCALING_FACTOR: 8}, "low_freq_factor is missing"),
        ({14: 8, 15: 4, 16: 4, 17: 64}, "runs from 4 to 4"),
        ({22: 1}, "header key 22 is unknown"),
    ],
)
def test_a_wrong_header_gets_a_sentence(
    toy: Path, tmp_path: Path, changes: dict[int, int | None], sentence: str
) -> None:
    with pytest.raises(ModelFileError, match=sentence):
        open_model(with_header(toy, tmp_path / "bad.m", changes))


def test_a_key_that_comes_twice_is_refused(toy: Path, tmp_path: Path) -> None:
    raw = toy.read_bytes()
    size = struct.unpack_from("<i", raw, 4)[0]
    again = struct.pack("<ii", MKey.VERSION, 0)
    bad = tmp_path / "bad.m"
    bad.write_bytes(
        raw[:4] + struct.pack("<i", size + len(again)) + raw[8:size] + again + raw[size:]
    )
    with pytest.raises(ModelFileError, match="header key 0 is unknown or comes twice"):
        open_model(bad)


def test_files_of_another_age_or_kind_get_a_sentence(toy: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.m"
    for magic, sentence in (
        (0xABCD00, "from before distributed-llama 0.12"),
        (0x567124, "a token"),
    ):
        bad.write_bytes(struct.pack("<i", magic) + toy.read_bytes()[4:])
        with pytest.raises(ModelFileError, match=sentence):
            open_model(bad)
    bad.write_bytes(toy.read_bytes()[:4] + struct.pack("<i", 2**31 - 1))
    with pytest.raises(ModelFileError, match="claims a header of 2147483647 bytes"):
        open_model(bad)
    bad.write_bytes(b"not a model")
    with pytest.raises(ModelFileError, match=r"is no \.m file"):
        MFileSource(bad)


def test_one_byte_more_or_less_is_noticed(toy: Path, tmp_path: Path) -> None:
    raw = toy.read_bytes()
    for changed, word in ((raw[:-1], "truncated"), (raw + b"\0", "too long")):
        (tmp_path / "bad.m").write_bytes(changed)
        with pytest.raises(ModelFileError, match=word):
            open_model(tmp_path / "bad.m")


def test_what_the_format_cannot_hold_is_refused_by_the_writer(tmp_path: Path) -> None:
    for kwargs in (
        {"arch": "qwen2"},
        {"qtype": QType.BF16},
        {"rope_theta": 1e4 + 0.5},
        {"rope_scaling": RopeScaling(RopeScalingKind.YARN, 4.0, 64)},
        {"hidden_dim": 172, "qtype": QType.Q8_0},
    ):
        with pytest.raises(ValueError, match=r"\.m format|does not end at a block"):
            write_toy(tmp_path / "no.m", fmt="m", **kwargs)  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []
