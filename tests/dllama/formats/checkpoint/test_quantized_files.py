"""Checkpoints that are quantized already: 8-bit floats, GPTQ, AWQ. Read exactly, or refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from dllama.errors import ModelFileError
from dllama.formats import open_model
from dllama.formats.checkpoint.fp8 import E4M3
from dllama.qtypes import QType
from dllama.weight_source import WeightSource
from tests.checkpoints import Entry, write_checkpoint
from tests.references.forward import tensor_values
from tests.toy_models import DEEPSEEK

NAME = "model.layers.1.mlp.down_proj."
ROWS, COLS = 64, 160  # of layers.1.w2
Change = Callable[[dict[str, Entry]], None]


def opened(folder: Path, change: Change, quantization: dict[str, object]) -> WeightSource:
    return open_model(write_checkpoint(folder, change=change, quantization_config=quantization))


# ---- 8-bit floats


def bf16(values: np.ndarray) -> np.ndarray:
    """Float32 values rounded to 8 significant bits, ties to even, by float64's own rounding."""
    _, exponent = np.frexp(values.astype(np.float64))
    unit = np.ldexp(1.0, exponent - 8)
    return np.where(values == 0, values, np.rint(values / unit) * unit).astype(np.float32)


def test_8_bit_floats_of_well_known_bytes() -> None:
    known = {0: 0.0, 1: 2.0**-9, 7: 7 * 2.0**-9, 8: 2.0**-6, 0x38: 1.0, 0x39: 1.125, 0x7E: 448.0}
    for byte, value in known.items():
        assert (E4M3[byte], E4M3[byte + 128]) == (value, -value)
    assert np.isnan(E4M3[[0x7F, 0xFF]]).all() and np.isfinite(E4M3).sum() == 254


def fp8(scales: np.ndarray, suffix: str, dtype: str = "F32") -> tuple[Change, np.ndarray]:
    """A change of the matrix NAME to 8-bit floats, and those bytes."""
    raw = np.random.default_rng(3).integers(0, 127, (ROWS, COLS)).astype(np.uint8)
    raw |= np.random.default_rng(4).integers(0, 2, raw.shape).astype(np.uint8) << 7
    words = scales.astype(np.float32)
    stored = (
        words.tobytes() if dtype == "F32" else (words.view(np.uint32) >> 16).astype("<u2").tobytes()
    )

    def change(tensors: dict[str, Entry]) -> None:
        tensors[NAME + "weight"] = ("F8_E4M3", (ROWS, COLS), raw.tobytes())
        tensors[NAME + suffix] = (dtype, scales.shape, stored)

    return change, raw


def test_scales_of_blocks_multiply_in_float32_and_are_rounded_to_bf16(tmp_path: Path) -> None:
    scales = np.random.default_rng(1).uniform(0.001, 0.1, (2, 3)).astype(np.float32)
    change, raw = fp8(scales, "weight_scale_inv")
    said = {"quant_method": "fp8", "weight_block_size": [48, 64]}
    source = opened(tmp_path / "toy", change, said)
    expected = bf16(E4M3[raw] * np.repeat(np.repeat(scales, 48, 0)[:ROWS], 64, 1)[:, :COLS])
    assert source.tensors["layers.1.w2"].qtype is QType.BF16
    assert np.array_equal(tensor_values(source, "layers.1.w2"), expected)
    cut = source.read("layers.1.w2", range(40, 60), range(32, 96))
    whole = source.read("layers.1.w2").reshape(ROWS, COLS, 2)
    assert np.array_equal(cut.reshape(20, 64, 2), whole[40:60, 32:96])


@pytest.mark.parametrize("shape", [(), (1,), (ROWS,), (ROWS, 1)])
def test_scales_of_rows_or_of_the_whole_matrix(tmp_path: Path, shape: tuple[int, ...]) -> None:
    scales = np.random.default_rng(1).uniform(0.001, 0.1, shape).astype(np.float32)
    change, raw = fp8(np.asarray(scales), "weight_scale")
    source = opened(tmp_path / "toy", change, {"quant_method": "fp8"})
    expected = bf16(E4M3[raw] * np.broadcast_to(scales.reshape(-1, 1), (ROWS, 1)))
    assert np.array_equal(tensor_values(source, "layers.1.w2"), expected)


def test_scales_of_few_bits_make_bf16_exactly(tmp_path: Path) -> None:
    """As powers of two do, which DeepSeek V3.1 has."""
    scales = np.array([[0.25, 2.0**-10], [0.0009765625 * 1.5, 1.875]], np.float32)
    change, raw = fp8(scales, "weight_scale_inv", "BF16")
    source = opened(tmp_path / "toy", change, {"weight_block_size": [32, 128]})
    expected = E4M3[raw] * np.repeat(np.repeat(scales, 32, 0), 128, 1)[:, :COLS]
    assert source.tensors["layers.1.w2"].qtype is QType.BF16
    assert np.array_equal(tensor_values(source, "layers.1.w2"), expected)


def test_keys_and_values_of_latent_attention_are_parted(tmp_path: Path) -> None:
    """As DeepSeek-V3 has them: in one matrix of 8-bit floats, whose blocks hold parts of heads."""
    raw = np.random.default_rng(3).integers(0, 127, (256, 32)).astype(np.uint8)
    scales = np.random.default_rng(1).uniform(0.001, 0.1, (6, 2)).astype(np.float32)
    name = "model.layers.1.self_attn.kv_b_proj.weight"

    def change(tensors: dict[str, Entry]) -> None:
        tensors[name] = ("F8_E4M3", raw.shape, raw.tobytes())
        tensors[name + "_scale_inv"] = ("F32", scales.shape, scales.tobytes())

    said = {"quant_method": "fp8", "weight_block_size": [48, 16]}
    folder = write_checkpoint(
        tmp_path / "toy", arch="deepseek2", fields=DEEPSEEK, change=change, quantization_config=said
    )
    source = open_model(folder)
    both = bf16(E4M3[raw] * np.repeat(np.repeat(scales, 48, 0)[:256], 16, 1))
    keys, values = np.split(both.reshape(4, 64, 32), 2, axis=1)  # four heads, of 32 and 32 rows
    found = tensor_values(source, "layers.1.wk_b")
    assert np.array_equal(found, keys.transpose(0, 2, 1).reshape(-1, 32))
    assert np.array_equal(tensor_values(source, "layers.1.wv_b"), values.reshape(-1, 32))


def test_scales_that_fit_nothing_are_refused(tmp_path: Path) -> None:
    for i, (shape, suffix, said) in enumerate(
        (
            ((3, 3), "weight_scale_inv", "which fits no blocks of 128 x 128"),
            ((7,), "weight_scale", "which fits no blocks"),
            ((1, 2), "weight_zero", "there is neither"),
        )
    ):
        change, _ = fp8(np.ones(shape, np.float32), suffix)
        with pytest.raises(ModelFileError, match=said):
            opened(tmp_path / str(i), change, {})
    change, _ = fp8(np.array([np.nan], np.float32), "weight_scale")
    with pytest.raises(ModelFileError, match="are no numbers"):
        opened(tmp_path / "nan", change, {})


# ---- 4 bits


def gptq(
    zeros: np.ndarray, *, group: int, order: np.ndarray | None = None
) -> tuple[Change, np.ndarray]:
    """A change of the matrix NAME to AutoGPTQ's layout, and its values (rows, cols)."""
    quants, scales = random_int4(group)

    def change(tensors: dict[str, Entry]) -> None:
        del tensors[NAME + "weight"]
        put_int4(tensors, pack(quants.T, 0), pack(zeros - 1, 1), scales)
        found = np.arange(COLS) // group if order is None else order
        tensors[NAME + "g_idx"] = ("I32", (COLS,), found.astype("<i4").tobytes())

    return change, int4_values(quants, scales, zeros, group)


def awq(zeros: np.ndarray, *, group: int) -> tuple[Change, np.ndarray]:
    """The same in AWQ's layout, which has 8 outputs in a word, in an order of its own."""
    quants, scales = random_int4(group)
    slots = np.array([0, 2, 4, 6, 1, 3, 5, 7])  # the column in each slot, from the lowest bits on

    def change(tensors: dict[str, Entry]) -> None:
        del tensors[NAME + "weight"]
        in_slots = quants.T.reshape(COLS, -1, 8)[:, :, slots].reshape(COLS, ROWS)
        zeros_in_slots = zeros.reshape(len(zeros), -1, 8)[:, :, slots].reshape(zeros.shape)
        put_int4(tensors, pack(in_slots, 1), pack(zeros_in_slots, 1), scales)

    return change, int4_values(quants, scales, zeros, group)


def random_int4(group: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(5)
    quants = rng.integers(0, 16, (ROWS, COLS))
    return quants, rng.uniform(0.001, 0.1, (COLS // group, ROWS)).astype(np.float16)


def int4_values(
    quants: np.ndarray, scales: np.ndarray, zeros: np.ndarray, group: int
) -> np.ndarray:
    each = np.arange(COLS) // group
    return (scales.astype(np.float64)[each] * (quants.T - zeros[each])).T


def pack(values: np.ndarray, axis: int) -> np.ndarray:
    """Eight values along an axis in a word, the first in the lowest bits."""
    moved = np.moveaxis(values.astype(np.uint32), axis, -1)
    words = moved.reshape(*moved.shape[:-1], -1, 8) << (4 * np.arange(8, dtype=np.uint32))
    return np.ascontiguousarray(np.moveaxis(words.sum(axis=-1, dtype=np.uint32), -1, axis))


def put_int4(
    tensors: dict[str, Entry], quants: np.ndarray, zeros: np.ndarray, scales: np.ndarray
) -> None:
    tensors[NAME + "qweight"] = ("I32", quants.shape, quants.tobytes())
    tensors[NAME + "qzeros"] = ("I32", zeros.shape, zeros.tobytes())
    tensors[NAME + "scales"] = ("F16", scales.shape, scales.tobytes())


@pytest.mark.parametrize("layout", [gptq, awq])
@pytest.mark.parametrize("group", [32, 160])
def test_symmetric_quants_become_the_blocks_of_q4_0(
    tmp_path: Path, layout: Callable[..., tuple[Change, np.ndarray]], group: int
) -> None:
    change, expected = layout(np.full((COLS // group, ROWS), 8), group=group)
    method = {"quant_method": layout.__name__, "bits": 4, "group_size": group}
    source = opened(tmp_path / "toy", change, method)
    assert source.tensors["layers.1.w2"].qtype is QType.Q4_0
    assert np.array_equal(tensor_values(source, "layers.1.w2"), expected)
    whole = source.read("layers.1.w2")
    cut = source.read("layers.1.w2", range(3, 21), range(32, 128))
    assert np.array_equal(cut, whole[3:21, 18:72])


@pytest.mark.parametrize("layout", [gptq, awq])
def test_other_zeros_become_the_blocks_of_q5_0(
    tmp_path: Path, layout: Callable[..., tuple[Change, np.ndarray]]
) -> None:
    # AutoGPTQ stores one less than it means: 1 to 16.
    ends = (1, 17) if layout is gptq else (0, 16)
    zeros = np.random.default_rng(6).integers(*ends, (COLS // 32, ROWS))
    change, expected = layout(zeros, group=32)
    source = opened(tmp_path / "toy", change, {"quant_method": layout.__name__})
    assert source.tensors["layers.1.w2"].qtype is QType.Q5_0
    assert np.array_equal(tensor_values(source, "layers.1.w2"), expected)
    whole = source.read("layers.1.w2")
    cut = source.read("layers.1.w2", range(3, 21), range(32, 128))
    assert np.array_equal(cut, whole[3:21, 22:88])


def test_layouts_that_are_not_known_are_refused(tmp_path: Path) -> None:
    eights = np.full((5, ROWS), 8)
    shuffled = np.random.default_rng(0).permutation(COLS) // 32
    cases: list[tuple[Change, dict[str, object], str]] = [
        (gptq(eights, group=32)[0], {"quant_method": "hqq"}, "quantized by 'hqq'; .*gptq and awq"),
        (gptq(eights, group=32, order=shuffled)[0], {"quant_method": "gptq"}, "desc_act"),
        (awq(eights, group=32)[0], {"quant_method": "awq", "version": "gemv"}, "layout 'gemv'"),
        (gptq(np.full((10, ROWS), 8), group=16)[0], {"quant_method": "gptq"}, "groups of 16"),
        (gptq(eights, group=32)[0], {"quant_method": "awq"}, "qweight is I32 .*quants of 4 bits"),
    ]  # fmt: skip
    for i, (change, method, said) in enumerate(cases):
        with pytest.raises(ModelFileError, match=said):
            opened(tmp_path / str(i), change, method)
