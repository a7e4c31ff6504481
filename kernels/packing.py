"""From rows as files hold them to the layout the kernels read. Bits are moved, never changed."""

from __future__ import annotations

from typing import Any

import numpy as np

from kernels import layout
from kernels.arrays import aligned
from kernels.jit import jitted, kernel
from kernels.layout import BLOCK, BLOCK_FORMATS, GROUP, BlockFormat, Packed, n_groups
from kernels.raw_blocks import READERS
from kernels.team import claim, region


@jitted
def _scatter_quants(q, lane, out, low_bits, high_bits):
    """32 quants of one row to their places in a group's vectors (see unpack.py)."""
    low_mask = (1 << low_bits) - 1
    fields = 8 // low_bits
    for i in range(BLOCK):
        word, byte = i // 4, i % 4
        if low_bits == 4:  # low nibbles hold the first 16 columns, high ones the last
            vector, field = word % 4, word // 4
        else:  # a vector holds neighbouring columns
            vector, field = word // fields, word % fields
        at = vector * 64 + lane * 4 + byte
        out[at] |= (q[i] & low_mask) << (low_bits * field)
        if high_bits == 1:
            out[low_bits * 64 + lane * 4 + byte] |= (q[i] >> low_bits) << word
        elif high_bits == 2:
            at = (low_bits + word // 4) * 64 + lane * 4 + byte
            out[at] |= (q[i] >> low_bits) << (2 * (word % 4))


def _packer(fmt: BlockFormat) -> Any:
    """A region that packs groups of one format."""
    read, n_values, raw_bytes = READERS[fmt.name].quants, fmt.values, fmt.raw_bytes
    low_bits, high_bits, quant_bytes = fmt.low_bits, fmt.high_bits, fmt.quant_bytes
    scale_bytes, words = fmt.scale_bytes, fmt.words

    @region
    def body(thread, team, raw, quants, scales, n_rows):
        n_units = raw.shape[1] // raw_bytes
        q = np.empty(n_values, np.uint8)
        while True:
            group = claim(team, 1)
            if group >= quants.shape[0]:
                return
            for lane in range(min(GROUP, n_rows - group * GROUP)):
                row = raw[group * GROUP + lane]
                for unit in range(n_units):
                    read(row, unit * raw_bytes, q)
                    for block in range(n_values // BLOCK):
                        at = (unit * (n_values // BLOCK) + block) * quant_bytes
                        _scatter_quants(q[block * BLOCK : (block + 1) * BLOCK], lane,
                                        quants[group, at : at + quant_bytes], low_bits,
                                        high_bits)  # fmt: skip
                    place = unit * scale_bytes
                    for offset, size in words:
                        for byte in range(size):
                            scales[group, place + lane * size + byte] = row[
                                unit * raw_bytes + offset + byte
                            ]
                        place += GROUP * size

    return body


@region
def _pack_items(thread, team, raw, items, n_rows):
    n_cols = raw.shape[1]
    while True:
        group = claim(team, 1)
        if group >= items.shape[0]:
            return
        n_lanes = min(GROUP, n_rows - group * GROUP)
        for first in range(0, n_cols, 16):  # a square at a time: both sides stay in the cache
            for lane in range(n_lanes):
                for col in range(first, min(first + 16, n_cols)):
                    items[group, col * GROUP + lane] = raw[group * GROUP + lane, col]


@kernel
def pack_floats(team, args):
    _pack_items(team, args)


# One entry a format, as in matmul.py.
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


_BLOCK_PACKERS = {
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


def pack(team: np.ndarray, fmt: str, raw: np.ndarray, cols: int) -> Packed:
    """Packs raw rows, uint8 (rows, bytes of a row), of a format named in layout.py.

    Rows beyond the last are zero weights. Raises ValueError where the bytes do not fit `cols`.
    """
    rows = raw.shape[0]
    raw = np.ascontiguousarray(raw)
    if fmt in BLOCK_FORMATS:
        block = BLOCK_FORMATS[fmt]
        n_units, rest = divmod(cols, block.values)
        _check(rest == 0 and raw.shape[1] == n_units * block.raw_bytes, fmt, raw, cols)
        quants = aligned((n_groups(rows), cols // BLOCK * block.quant_bytes), np.uint8)
        scales = aligned((n_groups(rows), n_units * block.scale_bytes), np.uint8)
        _BLOCK_PACKERS[fmt](team, (team, raw, quants, scales, rows))
        return Packed(fmt, rows, cols, quants, scales)
    item = layout.FLOAT_FORMATS[fmt].item_bytes
    _check(raw.shape[1] == cols * item, fmt, raw, cols)
    kind = np.uint32 if item == 4 else np.uint16
    items = aligned((n_groups(rows), cols * GROUP), kind)
    pack_floats(team, (team, raw.view(kind), items, rows))
    return Packed(fmt, rows, cols, items.view(np.uint8), aligned((1, 1), np.uint8))


def _check(fits: bool, fmt: str, raw: np.ndarray, cols: int) -> None:
    if not fits:
        raise ValueError(f"rows of {raw.shape[1]} bytes are not {cols} values of {fmt}")
