"""From rows as files hold them to the layout the kernels read. Bits are moved, never changed."""

from __future__ import annotations

import numpy as np

from kernels import layout
from kernels.arrays import aligned
from kernels.jit import kernel
from kernels.layout import BLOCK, GROUP, Packed, n_groups
from kernels.team import claim, region


@region
def _pack_q4_0_groups(thread, team, raw, quants, scales, n_rows):
    n_blocks = raw.shape[1] // 18
    while True:
        group = claim(team, 1)
        if group >= quants.shape[0]:
            return
        for lane in range(min(GROUP, n_rows - group * GROUP)):
            row = raw[group * GROUP + lane]
            for block in range(n_blocks):
                source, target = block * 18, block * 256 + lane * 4
                scales[group, block * GROUP + lane] = row[source] | (row[source + 1] << 8)
                for word in range(4):
                    for byte in range(4):
                        quants[group, target + word * 64 + byte] = row[source + 2 + word * 4 + byte]


@region
def _pack_q8_0_groups(thread, team, raw, quants, scales, n_rows):
    n_blocks = raw.shape[1] // 34
    while True:
        group = claim(team, 1)
        if group >= quants.shape[0]:
            return
        for lane in range(min(GROUP, n_rows - group * GROUP)):
            row = raw[group * GROUP + lane]
            for block in range(n_blocks):
                source, target = block * 34, block * 512 + lane * 4
                scales[group, block * GROUP + lane] = row[source] | (row[source + 1] << 8)
                for word in range(8):
                    for byte in range(4):
                        # Signed to unsigned: the dot product wants the weights as 0..255.
                        quants[group, target + word * 64 + byte] = (
                            row[source + 2 + word * 4 + byte] ^ 0x80
                        )


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
def _pack_q4_0(team, raw, quants, scales, n_rows):
    _pack_q4_0_groups(team, (team, raw, quants, scales, n_rows))


@kernel
def _pack_q8_0(team, raw, quants, scales, n_rows):
    _pack_q8_0_groups(team, (team, raw, quants, scales, n_rows))


@kernel
def _pack_floats(team, raw, items, n_rows):
    _pack_items(team, (team, raw, items, n_rows))


_BLOCK_PACKERS = {"q4_0": _pack_q4_0, "q8_0": _pack_q8_0}


def pack(team: np.ndarray, fmt: str, raw: np.ndarray, cols: int) -> Packed:
    """Packs raw rows, uint8 (rows, bytes of a row), of a format named in layout.py.

    Rows beyond the last are zero weights. Raises ValueError where the bytes do not fit `cols`.
    """
    rows = raw.shape[0]
    raw = np.ascontiguousarray(raw)
    if fmt in layout.BLOCK_FORMATS:
        block = layout.BLOCK_FORMATS[fmt]
        n_blocks, rest = divmod(cols, BLOCK)
        _check(rest == 0 and raw.shape[1] == n_blocks * block.raw_bytes, fmt, raw, cols)
        quants = aligned((n_groups(rows), n_blocks * block.quant_bytes), np.uint8)
        scales = aligned((n_groups(rows), n_blocks * GROUP), np.uint16)
        _BLOCK_PACKERS[fmt](team, raw, quants, scales, rows)
        return Packed(fmt, rows, cols, quants, scales)
    item = layout.FLOAT_FORMATS[fmt].item_bytes
    _check(raw.shape[1] == cols * item, fmt, raw, cols)
    kind = np.uint32 if item == 4 else np.uint16
    items = aligned((n_groups(rows), cols * GROUP), kind)
    _pack_floats(team, raw.view(kind), items, rows)
    return Packed(fmt, rows, cols, items.view(np.uint8), aligned((1, 1), np.uint16))


def _check(fits: bool, fmt: str, raw: np.ndarray, cols: int) -> None:
    if not fits:
        raise ValueError(f"rows of {raw.shape[1]} bytes are not {cols} values of {fmt}")
