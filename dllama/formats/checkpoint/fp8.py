"""Weights in 8-bit floats (E4M3) under scales, as DeepSeek's and Qwen3's FP8 checkpoints have them.

A weight is the 8-bit float times the scale of its block, its row or its tensor, in float32, rounded
to BF16 as the makers' own converter does (fp8_cast_bf16.py of DeepSeek-V3). A float of 8 bits has 4
significant ones: with scales that have no more, such as powers of two, nothing is rounded."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dllama.errors import ModelFileError
from dllama.formats.checkpoint.folder import WeightFiles
from dllama.formats.floats import bf16_bytes, floats_of
from dllama.formats.safetensors import StoredTensor
from dllama.formats.slabs import DECODED, slabs
from dllama.qtypes import QType
from dllama.weight_source import TensorInfo

DTYPE = "F8_E4M3"
SCALES = {"F32": QType.F32, "F16": QType.F16, "BF16": QType.BF16}


def _e4m3() -> np.ndarray:
    """The value of each byte, (256,) float32: a sign, 4 bits of exponent, 3 of fraction; no
    infinities (arXiv 2209.05433)."""
    byte = np.arange(256)
    exponent, fraction = (byte >> 3) & 15, byte & 7
    small = np.ldexp(fraction / 8, -6)
    value = np.where(exponent == 0, small, np.ldexp(1 + fraction / 8, exponent - 7))
    value[byte & 127 == 127] = np.nan
    return np.where(byte < 128, value, -value).astype(np.float32)


E4M3 = _e4m3()


@dataclass(frozen=True, slots=True)
class Fp8Tensor:
    """A matrix of 8-bit floats. `scales` (row blocks, column blocks) float32 are those of blocks of
    `block_rows` x `block_cols` values."""

    info: TensorInfo
    stored: StoredTensor
    scales: np.ndarray
    block_rows: int
    block_cols: int

    def read(self, rows: range, cols: range) -> np.ndarray:
        """Returns the values of a cut in BF16, made anew at each call."""
        stored = self.stored
        raw = stored.file.view(stored.offset, stored.n_bytes, f"tensor {stored.name}")
        cut = raw.reshape(self.info.rows, self.info.cols)[
            rows.start : rows.stop, cols.start : cols.stop
        ]
        out = np.empty((len(rows), 2 * len(cols)), np.uint8)
        of_row = np.arange(rows.start, rows.stop) // self.block_rows
        of_col = np.arange(cols.start, cols.stop) // self.block_cols
        for slab in slabs(len(rows), len(cols), DECODED):
            scales = self.scales[of_row[slab]][:, of_col]
            out[slab] = bf16_bytes(E4M3[cut[slab]] * scales)
        return out

    def release(self) -> None:
        self.stored.file.release(self.stored.offset, self.stored.n_bytes)


def fp8_tensor(
    files: WeightFiles, stored: StoredTensor, name: str, block: tuple[int, int]
) -> tuple[Fp8Tensor, set[str]]:
    """Returns how a matrix of 8-bit floats is read, and the names of the tensors that it is made
    of. `block` is the size of blocks that have scales of their own. Raises ModelFileError where no
    scales fit."""
    base = stored.name.removesuffix("weight")
    used = {stored.name, base + "input_scale", base + "activation_scale"}
    for suffix in ("weight_scale_inv", "weight_scale"):
        found = files.tensors.get(base + suffix)
        if found is not None:
            break
    else:
        raise ModelFileError(
            f"{files.folder}: the tensor {stored.name} is of 8-bit floats, and there is neither a "
            f"{base}weight_scale_inv nor a {base}weight_scale; download the whole model."
        )
    scales = _scales(files, found)
    block_rows, block_cols = _block(files, stored, found, block)
    info = TensorInfo(name, QType.BF16, stored.rows, stored.cols)
    grid = scales.reshape(-(-stored.rows // block_rows), -(-stored.cols // block_cols))
    return Fp8Tensor(info, stored, grid, block_rows, block_cols), used | {found.name}


def _scales(files: WeightFiles, found: StoredTensor) -> np.ndarray:
    """Returns the scales as float32 (n,)."""
    if found.dtype not in SCALES:
        raise ModelFileError(
            f"{files.folder}: the scales {found.name} are stored as {found.dtype}; expected one of "
            f"{', '.join(SCALES)}. Use another model."
        )
    raw = found.file.view(found.offset, found.n_bytes, f"tensor {found.name}")
    scales: np.ndarray = floats_of(raw.reshape(1, -1), SCALES[found.dtype])[0]
    if not np.isfinite(scales).all():
        raise ModelFileError(
            f"{files.folder}: the scales {found.name} are no numbers; download it."
        )
    return scales


def _block(
    files: WeightFiles, stored: StoredTensor, found: StoredTensor, block: tuple[int, int]
) -> tuple[int, int]:
    """Returns the sides of the blocks that the scales are for."""
    rows, cols = stored.rows, stored.cols
    by_block = (-(-rows // block[0]), -(-cols // block[1]))
    shape = tuple(side for side in found.shape if side != 1)
    if found.name.endswith("_inv") and found.shape == by_block:
        return block
    if shape == ():
        return rows, cols
    if shape == (rows,) and found.shape[0] == rows:
        return 1, cols
    raise ModelFileError(
        f"{files.folder}: the scales {found.name} have the shape {list(found.shape)}, which fits "
        f"no blocks of {block[0]} x {block[1]}, rows or whole of the {rows} x {cols} weights. Use "
        f"another model."
    )
