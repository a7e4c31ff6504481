"""Tensors of all experts of a layer that a checkpoint has in one, as gpt-oss: (experts, inputs,
outputs) as plain numbers, or (experts, outputs, blocks, 16) in MXFP4 beside the scales of blocks;
biases as (experts, outputs). The outputs of two of our tensors may come by turns, or one after the
other, as Llama 4's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from dllama.errors import ModelFileError
from dllama.formats.checkpoint.folder import WeightFiles
from dllama.formats.mapped_source import Stored, cut_bytes
from dllama.formats.safetensors import ITEM_BYTES, StoredTensor
from dllama.qtypes import QType
from dllama.weight_source import TensorInfo

BLOCKS, SCALES = "_blocks", "_scales"
_LOW = np.uint64(0x0F0F0F0F0F0F0F0F)
_FOUR = np.uint64(4)
_BLOCK = np.dtype([("scale", "u1"), ("quants", "V16")])


class Turns(NamedTuple):
    """Which of the outputs in a checkpoint's tensor are ours: one of `n_parts` that come by turns,
    or one after the other."""

    name: str  # of their tensor
    number: int = 0
    n_parts: int = 1
    is_by_turns: bool = True

    @classmethod
    def of(cls, theirs: str) -> Turns:
        """Returns what a name such as `gate_up_proj[1::2]` or `gate_up_proj[1/2]` says."""
        name, bracket, rest = theirs.partition("[")
        if not bracket:
            return cls(name)
        sign = "::" if "::" in rest else "/"
        number, _, n_parts = rest.removesuffix("]").partition(sign)
        return cls(name, int(number), int(n_parts), sign == "::")

    def theirs(self, part: range, n_outputs: int) -> slice:
        """Returns where some of our outputs, of n_outputs, lie among theirs."""
        first, step = self.number * n_outputs, 1
        if self.is_by_turns:
            first, step = self.number, self.n_parts
        end = first + (part.stop - 1) * step + 1
        return slice(first + part.start * step, end if part else 0, step)


@dataclass(frozen=True, slots=True)
class JointMxfp4:
    """Matrices in MXFP4 whose bytes hold two neighbours each, where ours hold one value of the
    first half of a block and one of the second. The values are the same."""

    info: TensorInfo
    blocks: StoredTensor
    scales: StoredTensor
    turns: Turns

    def read(self, rows: range, cols: range) -> np.ndarray:
        """Returns the blocks of a cut, made anew at each call."""
        cut_bytes(self.info, cols)  # raises where they are no whole blocks
        outputs = self.turns.theirs(rows, self.info.rows // self.info.n_experts)
        part = (outputs, slice(cols.start // 32, cols.stop // 32))
        blocks, scales = (_numbers(each, np.dtype(np.uint8)) for each in (self.blocks, self.scales))
        n_experts = self.info.n_experts
        out = np.empty((n_experts, len(rows), len(cols) // 32), _BLOCK)
        for expert in range(n_experts):  # one at a time: these are gigabytes
            out["scale"][expert] = scales[expert][part]
            halves = np.ascontiguousarray(blocks[expert][part]).view(np.uint64)
            first, second = halves[..., 0], halves[..., 1]
            pairs = np.empty((*first.shape, 8, 2), np.uint8)
            even = (first & _LOW) | ((second & _LOW) << _FOUR)
            odd = ((first >> _FOUR) & _LOW) | (second & ~_LOW)
            pairs[..., 0] = even[..., None].view(np.uint8)
            pairs[..., 1] = odd[..., None].view(np.uint8)
            out["quants"][expert] = pairs.reshape(*first.shape, 16).view("V16")[..., 0]
        raw: np.ndarray = out.view(np.uint8)
        return raw.reshape(n_experts * len(rows), -1)

    def release(self) -> None:
        for stored in (self.blocks, self.scales):
            stored.file.release(stored.offset, stored.n_bytes)


@dataclass(frozen=True, slots=True)
class JointNumbers:
    """Matrices of plain numbers that lie the other way round, or vectors."""

    info: TensorInfo
    stored: StoredTensor
    turns: Turns

    def read(self, rows: range, cols: range) -> np.ndarray:
        """Returns the numbers of a cut, made anew at each call."""
        numbers = _numbers(self.stored, np.dtype(f"<u{ITEM_BYTES[self.stored.dtype]}"))
        n_rows = self.info.rows // self.info.n_experts
        if numbers.ndim == 2:
            outputs = self.turns.theirs(cols, self.info.cols)
            cut = numbers[:, None, outputs][:, rows.start : rows.stop]
        else:
            outputs = self.turns.theirs(rows, n_rows)
            cut = numbers[:, cols.start : cols.stop, outputs].transpose(0, 2, 1)
        whole: np.ndarray = np.ascontiguousarray(cut).view(np.uint8)
        return whole.reshape(self.info.n_experts * len(rows), -1)

    def release(self) -> None:
        self.stored.file.release(self.stored.offset, self.stored.n_bytes)


def joint_tensor(
    files: WeightFiles, info: TensorInfo, theirs: str, types: dict[str, QType]
) -> tuple[Stored, set[str]] | None:
    """Returns how a tensor of several experts is read that the checkpoint has in one, and the names
    of those that it is made of; None where there is no such tensor. The type that `info` names does
    not count; `types` are those of plain numbers. Raises ModelFileError for other shapes."""
    turns = Turns.of(theirs)
    n_experts, rows, cols = info.n_experts, info.rows // info.n_experts, info.cols
    blocks, scales = files.tensors.get(turns.name + BLOCKS), files.tensors.get(turns.name + SCALES)
    if blocks is not None and scales is not None:
        outputs = rows * turns.n_parts
        _check(files, blocks, ("U8",), (n_experts, outputs, cols // 32, 16))
        _check(files, scales, ("U8",), (n_experts, outputs, cols // 32))
        made = TensorInfo(info.name, QType.MXFP4, info.rows, cols, n_experts=n_experts)
        return JointMxfp4(made, blocks, scales, turns), {turns.name + BLOCKS, turns.name + SCALES}
    stored = files.tensors.get(turns.name)
    if stored is None:
        return None
    n_parts = turns.n_parts
    shape = (n_experts, cols * n_parts) if rows == 1 else (n_experts, cols, rows * n_parts)
    _check(files, stored, tuple(types), shape)
    made = TensorInfo(info.name, types[stored.dtype], info.rows, cols, n_experts=n_experts)
    return JointNumbers(made, stored, turns), {turns.name}


def _numbers(stored: StoredTensor, dtype: np.dtype) -> np.ndarray:
    raw = stored.file.view(stored.offset, stored.n_bytes, f"tensor {stored.name}")
    return np.frombuffer(raw, dtype).reshape(stored.shape)


def _check(
    files: WeightFiles, stored: StoredTensor, types: tuple[str, ...], shape: tuple[int, ...]
) -> None:
    if stored.dtype not in types or stored.shape != shape:
        raise ModelFileError(
            f"{files.folder}: the tensor {stored.name} is {stored.dtype} {list(stored.shape)}; "
            f"expected {' or '.join(types)} {list(shape)}. Use another model."
        )
