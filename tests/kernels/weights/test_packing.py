"""Packed matrices against the layout's own words, a value at a time."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from kernels.formats import ALL_TYPES, FLOAT_TYPES, format_of
from kernels.weights.layout import GROUP, WORD_BYTES, BlockType, FloatType, n_groups
from kernels.weights.packing import Packing, pack

ODD_COLUMNS = [1, 5, 8, 11, 33, 172]  # for formats without blocks

COLUMN: dict[int, Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]] = {
    1: lambda vector, field, byte: 4 * field + byte,
    2: lambda vector, field, byte: 16 * vector + 4 * field + byte,
    4: lambda vector, field, byte: 16 * field + 4 * vector + byte,
    8: lambda vector, field, byte: 4 * vector + byte,
}
"""Which of 32 columns is kept in a field of so many bits, by its vector, place and byte."""


def random_rows(fmt: str, rows: int, cols: int) -> np.ndarray:
    """Any bits at all, uint8 (rows, bytes of a row)."""
    n_bytes = format_of(fmt).layout.row_bytes(cols)
    return np.random.default_rng(rows + cols).integers(0, 256, (rows, n_bytes), np.uint8)


def fields(q: np.ndarray, width: int) -> np.ndarray:
    """32 quants of `width` bits as the words of one row, uint8 (width, 4)."""
    vector, field, byte = np.indices((width, 8 // width, 4))
    kept = (q[COLUMN[width](vector, field, byte)] & ((1 << width) - 1)).astype(np.uint8)
    words: np.ndarray = np.bitwise_or.reduce(kept << (width * field).astype(np.uint8), axis=1)
    return words


def row_words(f: BlockType, unit: np.ndarray) -> np.ndarray:
    """One row's words of a unit's quants, uint8 (words, 4)."""
    q = np.zeros(f.values, np.uint8)
    f.read_quants(unit, 0, q)
    words = []
    for block in q.reshape(-1, 32):
        words.append(fields(block, f.low_bits))
        if f.high_bits:
            words.append(fields(block >> f.low_bits, f.high_bits))
    return np.concatenate(words)


def grouped(words: np.ndarray) -> np.ndarray:
    """Words (rows, units, words, bytes) of rows to (groups, units, -1), word by word of 16 rows."""
    rows, units = words.shape[:2]
    missing = n_groups(rows) * GROUP - rows
    whole = np.pad(words, ((0, missing), (0, 0), (0, 0), (0, 0)))
    groups = whole.reshape(-1, GROUP, *words.shape[1:])
    return groups.transpose(0, 2, 3, 1, 4).reshape(n_groups(rows), units, -1)


def packed_slowly(fmt: str, raw: np.ndarray, cols: int) -> tuple[np.ndarray, np.ndarray]:
    """The planes of quants and of scales, (groups, bytes) each."""
    f = format_of(fmt).layout
    if isinstance(f, FloatType):
        missing = -cols % f.columns
        items = np.pad(raw, ((0, 0), (0, missing * f.item_bytes)))
        vectors = items.reshape(len(raw), 1, -1, f.columns * f.item_bytes)
        return grouped(vectors)[:, 0], np.zeros((n_groups(len(raw)), 0), np.uint8)
    units = raw.reshape(len(raw), -1, f.raw_bytes)
    words = np.array([[row_words(f, unit) for unit in row] for row in units])
    scales = [grouped(units[:, :, None, at : at + WORD_BYTES[kind]]) for at, kind in f.words]
    n = n_groups(len(raw))
    return grouped(words).reshape(n, -1), np.concatenate(scales, axis=2).reshape(n, -1)


def in_fields(fmt: str) -> bool:
    """True if quants are packed as fields of bits, which the words of this file tell. Numbers of
    runs (kernels/weights/grids.py) are told by their products: formats/test_one_value.py."""
    layout = format_of(fmt).layout
    return isinstance(layout, FloatType) or layout.runs is None


def assert_packed(team: np.ndarray, fmt: str, raws: list[np.ndarray], cols: int) -> None:
    packed = pack(team, fmt, raws, cols)
    whole = np.concatenate(raws)
    if in_fields(fmt):
        quants, scales = packed_slowly(fmt, whole, cols)
    else:
        missing = np.zeros((-len(whole) % GROUP, whole.shape[1]), np.uint8)
        filled_up = pack(team, fmt, [np.concatenate([whole, missing])], cols)
        quants, scales = filled_up.quants, filled_up.scales
    assert (packed.rows, packed.cols) == (sum(map(len, raws)), cols)
    assert np.array_equal(packed.quants, quants)
    assert np.array_equal(packed.scales, scales)


@pytest.mark.parametrize("fmt", ALL_TYPES)
def test_packed_rows_are_the_files_bits(team: np.ndarray, fmt: str) -> None:
    for rows in (16, 32, 1, 37):
        assert_packed(team, fmt, [random_rows(fmt, rows, 512)], 512)


@pytest.mark.parametrize("fmt", FLOAT_TYPES)
@pytest.mark.parametrize("cols", ODD_COLUMNS)
def test_any_number_of_plain_columns(team: np.ndarray, fmt: str, cols: int) -> None:
    assert_packed(team, fmt, [random_rows(fmt, 19, cols)], cols)


@pytest.mark.parametrize("fmt", ALL_TYPES)
def test_matrices_packed_below_each_other_are_one(team: np.ndarray, fmt: str) -> None:
    """Borders between them need not be borders of groups."""
    raw = random_rows(fmt, 45, 256)
    assert_packed(team, fmt, [raw[:7], raw[7:8], raw[8:8], raw[8:30], raw[30:]], 256)


@pytest.mark.parametrize("fmt", ALL_TYPES)
def test_a_cut_of_wider_rows_needs_no_copy(team: np.ndarray, fmt: str) -> None:
    raw = random_rows(fmt, 20, 768)
    third = raw.shape[1] // 3
    cut = raw[:, third : 2 * third]
    cut.flags.writeable = False
    assert not cut.flags.c_contiguous
    assert_packed(team, fmt, [cut], 256)


@pytest.mark.parametrize("own", [range(256, 512), range(32, 480), range(224, 288)], ids=str)
@pytest.mark.parametrize("fmt", ALL_TYPES)
def test_own_columns_are_packed_as_in_the_whole(team: np.ndarray, fmt: str, own: range) -> None:
    """The quants of these alone, and the scales of all units that they have a part of. Nothing is
    written beside them: other columns' bits may be anything."""
    raw, layout = random_rows(fmt, 37, 768), format_of(fmt).layout
    whole, part = pack(team, fmt, [raw], 768), pack(team, fmt, [raw], 768, own)
    assert (part.rows, part.cols) == (37, len(own))
    if isinstance(layout, FloatType):
        per_column = whole.quants.shape[1] // 768
        mine = whole.quants[:, own.start * per_column : own.stop * per_column]
        assert np.array_equal(part.quants, mine) and part.first_block == 0
        return
    runs, unit = range(own.start // 32, own.stop // 32), layout.unit_blocks
    mine = whole.quants[:, runs.start * layout.quant_bytes : runs.stop * layout.quant_bytes]
    units = range(runs.start // unit, -(-runs.stop // unit))
    scales = whole.scales[:, units.start * layout.scale_bytes : units.stop * layout.scale_bytes]
    assert np.array_equal(part.quants, mine) and np.array_equal(part.scales, scales)
    assert part.first_block == runs.start % unit


def test_columns_that_cannot_be_cut_are_refused(team: np.ndarray) -> None:
    raw = random_rows("q4_k", 16, 512)
    for own in (range(16, 256), range(48), range(256, 544), range(-32, 64)):
        with pytest.raises(ValueError, match="begins and ends at multiples of 32 within them"):
            pack(team, "q4_k", [raw], 512, own)


def test_rows_may_be_fewer_than_there_is_room_for(team: np.ndarray) -> None:
    raw = random_rows("q4_k", 21, 256)
    packing = Packing(team, "q4_k", 100, 256)
    packing.add(raw[:20].copy())
    packing.add(raw[20:])
    packed, whole = packing.packed(), pack(team, "q4_k", [raw], 256)
    assert np.array_equal(packed.quants, whole.quants) and len(packed.quants) == 2
    assert np.array_equal(packed.scales, whole.scales)


def test_what_does_not_fit_is_refused(team: np.ndarray) -> None:
    with pytest.raises(ValueError, match="are not 64 values of q4_0"):
        pack(team, "q4_0", [np.zeros((16, 18), np.uint8)], 64)
    with pytest.raises(ValueError, match="are not 40 values of q4_0"):
        pack(team, "q4_0", [np.zeros((16, 18), np.uint8)], 40)
    packing = Packing(team, "q8_0", 20, 32)
    packing.add(np.zeros((16, 34), np.uint8))
    with pytest.raises(ValueError, match="5 rows more than the 16 there are"):
        packing.add(np.zeros((5, 34), np.uint8))
