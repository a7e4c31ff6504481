"""From rows as files hold them to the layout the kernels read. Bits are moved, never changed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from kernels.arrays import huge
from kernels.intrinsics import address
from kernels.jit import kernel, named
from kernels.layout import (
    BLOCK,
    BLOCK_FORMATS,
    FLOAT_FORMATS,
    GROUP,
    BlockFormat,
    FloatFormat,
    Packed,
    n_groups,
)
from kernels.packing_tiles import packing_tile
from kernels.team import claim, region


def _packer(fmt: BlockFormat | FloatFormat) -> Any:
    """A region that packs `rows` = (address, bytes from row to row, how many) of one format; the
    first becomes row first_row of the matrix."""
    tile = packing_tile(fmt)

    @region
    @named(f"pack_rows_{fmt.name}")
    def body(thread, team, rows, n_steps, quants, scales, first_row):
        raw, stride, n_rows = rows
        first_group, end = first_row // GROUP, first_row + n_rows
        while True:
            group = first_group + claim(team, 1)
            start = group * GROUP
            if start >= end:
                return
            first, last = max(first_row - start, 0), min(end - start, GROUP) - 1
            tile((raw + (start - first_row) * stride, stride, first, last, n_steps,
                  address(quants) + group * quants.shape[1],
                  address(scales) + group * scales.shape[1]))  # fmt: skip

    return body


# One entry a format, as in matmul.py.
_f32 = _packer(FLOAT_FORMATS["f32"])
_f16 = _packer(FLOAT_FORMATS["f16"])
_bf16 = _packer(FLOAT_FORMATS["bf16"])
_q4_0 = _packer(BLOCK_FORMATS["q4_0"])
_q4_1 = _packer(BLOCK_FORMATS["q4_1"])
_q5_0 = _packer(BLOCK_FORMATS["q5_0"])
_q5_1 = _packer(BLOCK_FORMATS["q5_1"])
_q8_0 = _packer(BLOCK_FORMATS["q8_0"])
_q2_k = _packer(BLOCK_FORMATS["q2_k"])
_q3_k = _packer(BLOCK_FORMATS["q3_k"])
_q4_k = _packer(BLOCK_FORMATS["q4_k"])
_q5_k = _packer(BLOCK_FORMATS["q5_k"])
_q6_k = _packer(BLOCK_FORMATS["q6_k"])
_iq4_nl = _packer(BLOCK_FORMATS["iq4_nl"])
_iq4_xs = _packer(BLOCK_FORMATS["iq4_xs"])


@kernel
def pack_f32(team, args):
    _f32(team, args)


@kernel
def pack_f16(team, args):
    _f16(team, args)


@kernel
def pack_bf16(team, args):
    _bf16(team, args)


@kernel
def pack_q4_0(team, args):
    _q4_0(team, args)


@kernel
def pack_q4_1(team, args):
    _q4_1(team, args)


@kernel
def pack_q5_0(team, args):
    _q5_0(team, args)


@kernel
def pack_q5_1(team, args):
    _q5_1(team, args)


@kernel
def pack_q8_0(team, args):
    _q8_0(team, args)


@kernel
def pack_q2_k(team, args):
    _q2_k(team, args)


@kernel
def pack_q3_k(team, args):
    _q3_k(team, args)


@kernel
def pack_q4_k(team, args):
    _q4_k(team, args)


@kernel
def pack_q5_k(team, args):
    _q5_k(team, args)


@kernel
def pack_q6_k(team, args):
    _q6_k(team, args)


@kernel
def pack_iq4_nl(team, args):
    _iq4_nl(team, args)


@kernel
def pack_iq4_xs(team, args):
    _iq4_xs(team, args)


_PACKERS = {
    "f32": pack_f32,
    "f16": pack_f16,
    "bf16": pack_bf16,
    "q4_0": pack_q4_0,
    "q4_1": pack_q4_1,
    "q5_0": pack_q5_0,
    "q5_1": pack_q5_1,
    "q8_0": pack_q8_0,
    "q2_k": pack_q2_k,
    "q3_k": pack_q3_k,
    "q4_k": pack_q4_k,
    "q5_k": pack_q5_k,
    "q6_k": pack_q6_k,
    "iq4_nl": pack_iq4_nl,
    "iq4_xs": pack_iq4_xs,
}


class Packing:
    """A matrix on its way into a format named in layout.py: raw rows are packed as they come.

    Room is made for `max_rows` rows of `cols` values; what is never filled costs no memory.
    Raises ValueError where `cols` values do not end at a block.
    """

    def __init__(self, team: np.ndarray, fmt: str, max_rows: int, cols: int) -> None:
        self._team, self.format, self.max_rows, self.cols = team, fmt, max_rows, cols
        self.rows = 0
        if fmt in BLOCK_FORMATS:
            block = BLOCK_FORMATS[fmt]
            self._n_steps, rest = divmod(cols, block.values)
            self._row_bytes = self._n_steps * block.raw_bytes if not rest else -1
            group_bytes = cols // BLOCK * block.quant_bytes, self._n_steps * block.scale_bytes
        else:
            plain = FLOAT_FORMATS[fmt]
            self._n_steps, self._row_bytes = cols, cols * plain.item_bytes
            vector_bytes = GROUP * plain.columns * plain.item_bytes
            group_bytes = plain.n_vectors(cols) * vector_bytes, 0
        groups = n_groups(max_rows)
        self._quants = huge((groups, group_bytes[0]))
        self._scales = huge((groups, group_bytes[1]))

    def add(self, raw: np.ndarray) -> None:
        """Packs more rows, uint8 (rows, bytes of a row), below those before; `raw` is free then.

        Raises ValueError where they do not fit.
        """
        if raw.shape[1] != self._row_bytes:
            raise ValueError(
                f"rows of {raw.shape[1]} bytes are not {self.cols} values of {self.format}"
            )
        if self.rows + len(raw) > self.max_rows:
            raise ValueError(
                f"{len(raw)} rows more than the {self.rows} there are do not fit a matrix of "
                f"{self.max_rows}"
            )
        if raw.strides[1] != 1 or raw.dtype != np.uint8:
            raw = np.ascontiguousarray(raw, np.uint8)
        rows = raw.__array_interface__["data"][0], raw.strides[0], len(raw)
        args = (self._team, rows, self._n_steps, self._quants, self._scales, self.rows)
        _PACKERS[self.format](self._team, args)
        self.rows += len(raw)

    def packed(self) -> Packed:
        """The matrix of the rows so far. Rows beyond the last, up to whole groups, are zeros."""
        groups = n_groups(self.rows)
        return Packed(
            self.format, self.rows, self.cols, self._quants[:groups], self._scales[:groups]
        )


def pack(team: np.ndarray, fmt: str, raws: Sequence[np.ndarray], cols: int) -> Packed:
    """Packs raw rows, uint8 (rows, bytes of a row) each, one below the other.

    Raises ValueError where the bytes do not fit `cols`.
    """
    packing = Packing(team, fmt, sum(len(raw) for raw in raws), cols)
    for raw in raws:
        packing.add(raw)
    return packing.packed()
