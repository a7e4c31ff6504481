"""From rows as files hold them to the layout the kernels read. Bits are moved, never changed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from kernels import layout
from kernels.arrays import aligned
from kernels.jit import jitted, kernel
from kernels.layout import BLOCK, BLOCK_FORMATS, GROUP, BlockFormat, Packed, n_groups
from kernels.raw_blocks import READERS
from kernels.team import claim, region


@jitted
def _put_nibbles(q, lane, out):
    """Low nibbles hold the first 16 columns, high ones the last (see unpack.py)."""
    for word in range(4):
        for byte in range(4):
            i = word * 4 + byte
            out[word * 64 + lane * 4 + byte] = (q[i] & 15) | ((q[16 + i] & 15) << 4)


@jitted
def _put_pairs(q, lane, out):
    for vector in range(2):
        for byte in range(4):
            i = vector * 16 + byte
            low = (q[i] & 3) | ((q[i + 4] & 3) << 2)
            high = ((q[i + 8] & 3) << 4) | ((q[i + 12] & 3) << 6)
            out[vector * 64 + lane * 4 + byte] = low | high


@jitted
def _put_bytes(q, lane, out):
    for word in range(8):
        for byte in range(4):
            out[word * 64 + lane * 4 + byte] = q[word * 4 + byte]


def _put_upper(low_bits: int, high_bits: int) -> Any:
    """What puts the bits above the low ones into the vectors behind those."""

    @jitted
    def nothing(q, lane, out):
        pass

    @jitted
    def one(q, lane, out):
        for byte in range(4):
            bits = 0
            for word in range(8):
                bits |= (q[word * 4 + byte] >> low_bits) << word
            out[low_bits * 64 + lane * 4 + byte] = bits

    @jitted
    def two(q, lane, out):
        for vector in range(2):
            for byte in range(4):
                bits = 0
                for word in range(4):
                    bits |= (q[vector * 16 + word * 4 + byte] >> low_bits) << (2 * word)
                out[(low_bits + vector) * 64 + lane * 4 + byte] = bits

    return (nothing, one, two)[high_bits]


_PUT = {2: _put_pairs, 4: _put_nibbles, 8: _put_bytes}
ROWS_AT_ONCE = GROUP


def _packer(fmt: BlockFormat) -> Any:
    """A region that packs rows of one format; row i becomes row first_row + i of the matrix."""
    read, n_values, raw_bytes = READERS[fmt.name].quants, fmt.values, fmt.raw_bytes
    put, put_upper = _PUT[fmt.low_bits], _put_upper(fmt.low_bits, fmt.high_bits)
    unit_blocks, quant_bytes = fmt.unit_blocks, fmt.quant_bytes
    scale_bytes, words = fmt.scale_bytes, fmt.words

    @jitted
    def pack_row(row, lane, quants, scales, q):
        for unit in range(row.size // raw_bytes):
            read(row, unit * raw_bytes, q)
            for block in range(unit_blocks):
                here = q[block * BLOCK : (block + 1) * BLOCK]
                out = quants[(unit * unit_blocks + block) * quant_bytes :]
                put(here, lane, out)
                put_upper(here, lane, out)
            place = unit * scale_bytes
            for offset, size in words:
                for byte in range(size):
                    value = row[unit * raw_bytes + offset + byte]
                    scales[place + lane * size + byte] = value
                place += GROUP * size

    @region
    def body(thread, team, raw, quants, scales, first_row):
        q = np.empty(n_values, np.uint8)
        while True:
            first = claim(team, ROWS_AT_ONCE)
            if first >= raw.shape[0]:
                return
            for i in range(first, min(first + ROWS_AT_ONCE, raw.shape[0])):
                group, lane = (first_row + i) // GROUP, (first_row + i) % GROUP
                pack_row(raw[i], lane, quants[group], scales[group], q)

    return body


@region
def _pack_items(thread, team, raw, items, columns, first_row):
    """Items of 2 or 4 bytes, a square of rows and columns at a time: both sides stay in the
    cache. A vector holds `columns` columns of each row."""
    n_cols = raw.shape[1]
    while True:
        start = claim(team, ROWS_AT_ONCE)
        if start >= raw.shape[0]:
            return
        for first in range(0, n_cols, 16):
            for i in range(start, min(start + ROWS_AT_ONCE, raw.shape[0])):
                group, lane = (first_row + i) // GROUP, (first_row + i) % GROUP
                for col in range(first, min(first + 16, n_cols)):
                    vector, place = col // columns, col % columns
                    items[group, (vector * GROUP + lane) * columns + place] = raw[i, col]


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


def pack(team: np.ndarray, fmt: str, raws: Sequence[np.ndarray], cols: int) -> Packed:
    """Packs raw rows, uint8 (rows, bytes of a row) each, one below the other, of a format named in
    layout.py.

    Rows beyond the last are zero weights. Raises ValueError where the bytes do not fit `cols`.
    """
    rows = sum(len(raw) for raw in raws)
    if fmt in BLOCK_FORMATS:
        block = BLOCK_FORMATS[fmt]
        n_units, rest = divmod(cols, block.values)
        row_bytes = n_units * block.raw_bytes if not rest else -1
        quants = aligned((n_groups(rows), cols // BLOCK * block.quant_bytes), np.uint8)
        scales = aligned((n_groups(rows), n_units * block.scale_bytes), np.uint8)
        packed = Packed(fmt, rows, cols, quants, scales)
        outputs: tuple[np.ndarray | int, ...] = (quants, scales)
        pack_rows = _BLOCK_PACKERS[fmt]
        kind: np.dtype[Any] = np.dtype(np.uint8)
    else:
        plain = layout.FLOAT_FORMATS[fmt]
        item = plain.item_bytes
        row_bytes, kind = cols * item, np.dtype(np.uint32 if item == 4 else np.uint16)
        width = plain.n_vectors(cols) * plain.columns * GROUP
        items = aligned((n_groups(rows), width), kind)
        packed = Packed(fmt, rows, cols, items.view(np.uint8), aligned((1, 1), np.uint8))
        outputs, pack_rows = (items, plain.columns), pack_floats
    first_row = 0
    for raw in raws:
        if raw.shape[1] != row_bytes:
            raise ValueError(f"rows of {raw.shape[1]} bytes are not {cols} values of {fmt}")
        pack_rows(team, (team, np.ascontiguousarray(raw).view(kind), *outputs, first_row))
        first_row += len(raw)
    return packed
