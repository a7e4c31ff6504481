"""Weights in 4 bits under scales of groups, as GPTQ (AutoGPTQ, GPTQModel) and AWQ ("gemm") lay them
out: value = scale * (quant - zero).

Where all zeros are 8, as GPTQ's symmetric ones are, these are the blocks of Q4_0, taken over as
they are. With other zeros, 0 to 16, quant - zero is a number of 5 bits with a sign, and these are
the blocks of Q5_0, just as exact."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from dllama.errors import ModelFileError
from dllama.formats.checkpoint.folder import WeightFiles
from dllama.formats.mapped_source import cut_bytes
from dllama.formats.safetensors import StoredTensor
from dllama.formats.slabs import DECODED, slabs
from dllama.qtypes import QType
from dllama.weight_source import TensorInfo

METHODS = ("gptq", "awq")
SYMMETRIC = 8
_WORD = 8  # quants in 32 bits
_AWQ_SLOTS = (0, 4, 1, 5, 2, 6, 3, 7)  # where AWQ keeps the columns 0 to 7 of a word


@dataclass(frozen=True, slots=True)
class Int4Tensor:
    """A matrix of `info.rows` outputs and `info.cols` inputs. `quants` are packed along the inputs,
    (cols / 8, rows), or with `is_awq` along the outputs, (cols, rows / 8); `scales` (groups, rows)
    are float16, `zeros` (groups, rows) uint8, None where all are 8."""

    info: TensorInfo
    quants: StoredTensor
    scales: np.ndarray
    zeros: np.ndarray | None
    group: int
    is_awq: bool

    def read(self, rows: range, cols: range) -> np.ndarray:
        """Returns the blocks of a cut, made anew at each call."""
        first, last = cut_bytes(self.info, cols)
        out = np.empty((len(rows), last - first), np.uint8)
        for slab in slabs(len(rows), len(cols), DECODED):
            out[slab] = self._blocks(rows[slab], cols)
        return out

    def _blocks(self, rows: range, cols: range) -> np.ndarray:
        quants = self._quants(rows, cols)
        groups = np.arange(cols.start, cols.stop, 32) // self.group
        scales = self.scales[:, rows.start : rows.stop].T[:, groups]
        blocks = quants.reshape(len(rows), -1, 2, 16)
        parts: list[np.ndarray] = [np.ascontiguousarray(scales)[..., None].view(np.uint8)]
        if self.zeros is not None:
            zeros = self.zeros[:, rows.start : rows.stop].T[:, groups]
            blocks = blocks + np.uint8(16) - zeros[..., None, None]
            fifth = np.packbits(blocks >> 4, axis=-1, bitorder="little")
            parts.append(fifth.reshape(*zeros.shape, 4))
        parts.append(blocks[:, :, 0] & 15 | blocks[:, :, 1] << 4)
        return np.concatenate(parts, axis=2).reshape(len(rows), -1)

    def release(self) -> None:
        self.quants.file.release(self.quants.offset, self.quants.n_bytes)

    def _quants(self, rows: range, cols: range) -> np.ndarray:
        """Returns the quants of a cut, uint8 (rows, cols)."""
        words = _words(self.quants)
        if self.is_awq:
            first, last = rows.start // _WORD, -(-rows.stop // _WORD)
            whole = unpacked(words[cols.start : cols.stop, first:last], is_awq=True)
            skip = rows.start - first * _WORD
            return np.ascontiguousarray(whole[:, skip : skip + len(rows)].T)
        first, last = cols.start // _WORD, -(-cols.stop // _WORD)
        whole = unpacked(words[first:last, rows.start : rows.stop].T, is_awq=False)
        skip = cols.start - first * _WORD
        return whole[:, skip : skip + len(cols)]


def unpacked(words: np.ndarray, *, is_awq: bool) -> np.ndarray:
    """Returns the 8 quants of each word, (n, m) uint32, as uint8 (n, 8 * m)."""
    slots = _AWQ_SLOTS if is_awq else range(_WORD)
    shifts = np.array([4 * slot for slot in slots], np.uint32)
    quants = (words[:, :, None] >> shifts) & np.uint32(15)
    return quants.astype(np.uint8).reshape(len(words), -1)


def int4_tensor(
    files: WeightFiles, said: Mapping[str, object], base: str, name: str, shape: tuple[int, int]
) -> tuple[Int4Tensor, set[str]]:
    """Returns how the matrix `base`qweight is read, and the names of the tensors that it is made
    of. `said` is the quantization_config. Raises ModelFileError for layouts that are not known."""
    method = said.get("quant_method")
    if method not in METHODS:
        raise ModelFileError(
            f"{files.folder}: the weights {base}qweight are quantized by {str(method)[:40]!r}; "
            f"this version reads {' and '.join(METHODS)}. Use another model."
        )
    rows, cols = shape
    is_awq = method == "awq"
    scales = _scales(files, said, base, shape)
    group = cols // len(scales)
    quants = _found(files, base + "qweight", (cols, rows // 8) if is_awq else (cols // 8, rows))
    packed = _found(files, base + "qzeros", (len(scales), rows // 8))
    zeros = unpacked(_words(packed), is_awq=is_awq)
    if not is_awq and said.get("checkpoint_format") != "gptq_v2":
        zeros = zeros + np.uint8(1)  # AutoGPTQ stores one less
    used = {quants.name, packed.name, base + "scales"}
    order = files.tensors.get(base + "g_idx")
    if order is not None:
        _check_order(files, order, cols, group)
        used.add(order.name)
    is_symmetric = bool((zeros == SYMMETRIC).all())
    info = TensorInfo(name, QType.Q4_0 if is_symmetric else QType.Q5_0, rows, cols)
    kept = None if is_symmetric else zeros
    return Int4Tensor(info, quants, scales, kept, group, is_awq), used


def _scales(
    files: WeightFiles, said: Mapping[str, object], base: str, shape: tuple[int, int]
) -> np.ndarray:
    """Returns the scales (groups, rows) float16. Raises ModelFileError where they, and the groups
    that they are for, are of a layout that is not known."""
    rows, cols = shape
    found = files.tensors.get(base + "scales")
    n_groups = 0 if found is None else found.rows
    if found is None or found.dtype != "F16" or not n_groups or found.cols != rows:
        raise ModelFileError(
            f"{files.folder}: {base}scales are not float16 for {rows} outputs; download the whole "
            f"model, or use another one."
        )
    layout = str(said.get("version", "gemm")).lower()[:40]
    if cols % n_groups or cols // n_groups % 32 or rows % 8 or layout != "gemm":
        raise ModelFileError(
            f"{files.folder}: {base}qweight has groups of {cols / n_groups:g} values in the layout "
            f"{layout!r}; this version reads groups of a multiple of 32 values in the layout "
            f"'gemm'. Use another model."
        )
    raw = found.file.view(found.offset, found.n_bytes, f"tensor {found.name}")
    return np.frombuffer(raw.tobytes(), "<f2").reshape(n_groups, rows)


def _found(files: WeightFiles, name: str, shape: tuple[int, int]) -> StoredTensor:
    found = files.tensors.get(name)
    if found is None or found.dtype not in ("I32", "U32") or found.shape != shape:
        what = "is missing" if found is None else f"is {found.dtype} {list(found.shape)}"
        raise ModelFileError(
            f"{files.folder}: the tensor {name} {what}; expected I32 {list(shape)}, quants of 4 "
            f"bits. Use another model."
        )
    return found


def _words(stored: StoredTensor) -> np.ndarray:
    """The packed words of a tensor, uint32 of its shape."""
    raw = stored.file.view(stored.offset, stored.n_bytes, f"tensor {stored.name}")
    return raw.view("<u4").reshape(stored.shape)


def _check_order(files: WeightFiles, order: StoredTensor, cols: int, group: int) -> None:
    """Raises ModelFileError where groups do not follow one another (`desc_act`)."""
    found = _words(order) if order.dtype == "I32" else np.empty(0)
    if not np.array_equal(found, np.arange(cols) // group):
        raise ModelFileError(
            f"{files.folder}: {order.name} puts the inputs into groups in an order of its own "
            f"(desc_act), which this version does not read. Use another model."
        )
