"""Raw rows to packed groups, 16 rows at a time: emitted code that writes whole vectors."""

from __future__ import annotations

import math
from contextlib import nullcontext
from typing import Any, NamedTuple

from llvmlite import ir

from kernels.emit.emitter import Emit, emitted_function
from kernels.emit.intrinsics import address
from kernels.emit.jit import intrinsic, named
from kernels.emit.later import types
from kernels.emit.vectors import I16X16, I32, I32X16, Value
from kernels.team import claim, region
from kernels.weights.layout import GROUP, WORD_BYTES, BlockType, FloatType
from kernels.weights.raw_rows import Rows

HALVES = 2 * GROUP  # bytes of 2 bytes for each of 16 rows
VECTOR = 4 * GROUP


class _Output:
    """Writes vectors one after the other: past the caches where `is_ours` is None, which means all
    lanes; else only the lanes it names, leaving those of other rows as they are."""

    def __init__(self, e: Emit, is_ours: Value | None, at: Value, align: int = VECTOR) -> None:
        self._e, self._is_ours, self._at, self._align, self._done = e, is_ours, at, align, 0

    def write(self, v: Value) -> None:
        e, where = self._e, self._e.at(self._at, self._done)
        n_bytes = v.type.count * v.type.element.width // 8
        align = min(n_bytes, self._align)
        if self._is_ours is not None:
            v = e.b.select(self._is_ours, v, e.load(v.type, where, min(align, HALVES)))
        store = e.b.store(v, e.b.inttoptr(where, v.type.as_pointer()), align=align)
        if self._is_ours is None and self._align == VECTOR:
            store.set_metadata("nontemporal", e.b.module.add_metadata([ir.Constant(I32, 1)]))
        self._done += n_bytes


class _Tile(NamedTuple):
    """The arguments of a tile: see `_packing_tile`."""

    raw: Value
    stride: Value
    first: Value
    last: Value
    n_steps: Value
    first_block: Value
    quants: Value
    scales: Value
    n_blocks: Value


def _row_addresses(e: Emit, p: _Tile) -> list[Value]:
    """The address of each lane's row. A lane outside the tile's rows reads one of them too, so that
    no byte outside is touched."""
    addresses = []
    for lane in range(GROUP):
        number = e.i64(lane)
        number = e.b.select(e.b.icmp_signed("<", number, p.first), p.first, number)
        number = e.b.select(e.b.icmp_signed(">", number, p.last), p.last, number)
        addresses.append(e.b.add(p.raw, e.b.mul(number, p.stride)))
    return addresses


def _lanes_between(e: Emit, p: _Tile) -> Value:
    """<16 x i1>: the lanes first .. last."""
    lanes = ir.Constant(I32X16, list(range(GROUP)))
    first, last = (e.splat(e.b.trunc(v, I32)) for v in (p.first, p.last))
    return e.b.and_(e.b.icmp_signed(">=", lanes, first), e.b.icmp_signed("<=", lanes, last))


def _emit_block_tile(
    e: Emit, fmt: BlockType, p: _Tile, addresses: list[Value], is_ours: Value | None
) -> None:
    with e.loop(p.n_steps) as unit:
        begin = e.b.mul(unit, e.i64(fmt.raw_bytes))
        rows = Rows(e, [e.b.add(a, begin) for a in addresses])
        before = e.b.sub(e.b.mul(unit, e.i64(fmt.unit_blocks)), p.first_block)
        for i, vectors in enumerate(fmt.sort_quants(rows)):
            block = e.b.add(before, e.i64(i))
            is_own = e.b.icmp_unsigned("<", block, p.n_blocks)
            with e.b.if_then(is_own) if fmt.unit_blocks > 1 else nullcontext():
                place = e.b.add(p.quants, e.b.mul(block, e.i64(fmt.quant_bytes)))
                out = _Output(e, is_ours, place, math.gcd(fmt.quant_bytes, VECTOR))
                for v in vectors:
                    out.write(v)
        place = e.b.mul(unit, e.i64(fmt.scale_bytes))
        _emit_scales(rows, fmt, _Output(e, is_ours, e.b.add(p.scales, place), HALVES))


def _emit_scales(rows: Rows, fmt: BlockType, out: _Output) -> None:
    for v in fmt.sort_scales(rows) if fmt.sort_scales else ():
        out.write(v)
    words = [] if fmt.sort_scales else list(fmt.words)
    while words:
        offset, kind = words.pop(0)
        follows = words and words[0][0] == offset + 2
        if follows and WORD_BYTES[kind] == WORD_BYTES[words[0][1]] == 2:  # both in one load
            words.pop(0)
            for half in _halves(rows.e, rows.word(offset, "u32")):
                out.write(half)
        else:
            out.write(rows.word(offset, kind))


def _halves(e: Emit, word: Value) -> tuple[Value, Value]:
    """The lower and the upper 16 bits, <16 x i16> each."""
    return e.b.trunc(word, I16X16), e.b.trunc(e.b.lshr(word, e.constant(I32X16, 16)), I16X16)


def _emit_float_tile(
    e: Emit, fmt: FloatType, p: _Tile, addresses: list[Value], is_ours: Value | None
) -> None:
    """n_steps are columns."""
    per_word = 4 // fmt.item_bytes
    n_words = e.b.sdiv(p.n_steps, e.i64(per_word))

    def put(first: Value, count: int) -> None:
        begin = e.b.mul(first, e.i64(4))
        rows = Rows(e, [e.b.add(a, begin) for a in addresses])
        out = _Output(e, is_ours, e.b.add(p.quants, e.b.mul(first, e.i64(VECTOR))))
        for word in rows.words(0, count):
            for v in [word] if per_word == fmt.columns else _halves(e, word):
                out.write(v)

    n_fours = e.b.sdiv(n_words, e.i64(4))
    with e.loop(n_fours) as four:
        put(e.b.mul(four, e.i64(4)), 4)
    done = e.b.mul(n_fours, e.i64(4))
    with e.loop(e.b.sub(n_words, done)) as i:
        put(e.b.add(done, i), 1)
    with e.loop(e.b.sub(p.n_steps, e.b.mul(n_words, e.i64(per_word)))):  # 0 or 1 half is left
        begin = e.b.mul(n_words, e.i64(4))
        half = Rows(e, [e.b.add(a, begin) for a in addresses]).word(0, "u16")
        out = _Output(e, is_ours, e.b.add(p.quants, e.b.mul(n_words, e.i64(VECTOR))))
        out.write(half if fmt.columns == 1 else e.b.zext(half, I32X16))


def _emit_tile(e: Emit, fmt: BlockType | FloatType, p: _Tile) -> None:
    """Whole groups bypass the caches: they are not read soon, and a line is written at once."""

    def emit(is_ours: Value | None) -> None:
        if isinstance(fmt, BlockType):
            _emit_block_tile(e, fmt, p, addresses, is_ours)
        else:
            _emit_float_tile(e, fmt, p, addresses, is_ours)

    addresses, is_ours = _row_addresses(e, p), _lanes_between(e, p)
    all_lanes = e.b.icmp_signed("==", e.b.sub(p.last, p.first), e.i64(GROUP - 1))
    with e.b.if_else(all_lanes) as (whole, partial):
        with whole:
            emit(None)
        with partial:
            emit(is_ours)
    e.b.fence("seq_cst")  # nontemporal stores are not ordered with others


def _packing_tile(fmt: BlockType | FloatType) -> Any:
    """An intrinsic tile(<_Tile>), all int64, that packs the rows first .. last of one group of 16.

    `raw` is where row 0 of the group is or would be, `stride` the bytes from row to row; `n_steps`
    counts units, or columns of plain numbers; of the units `n_blocks` runs of 32 columns belong to
    the matrix, from `first_block` on; `quants` and `scales` are the group's addresses.
    """
    n = len(_Tile._fields)

    def emit(e: Emit, args: Any) -> None:
        _emit_tile(e, fmt, _Tile(*args))

    @intrinsic
    def tile(typingctx: Any, args: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, values: Any) -> Any:
            unpacked = [builder.extract_value(values[0], i) for i in range(n)]
            name = f"dllama.pack.{fmt.name}"
            builder.call(emitted_function(builder.module, name, n, emit), unpacked)
            return context.get_dummy_value()

        return types.void(types.UniTuple(types.int64, n)), codegen

    return tile


def packer(fmt: BlockType | FloatType) -> Any:
    """A region that packs `rows` = (address, bytes from row to row, how many) of one type; the
    first becomes row first_row of the matrix. `columns` = (units, or columns of plain numbers; the
    run of 32 columns of the first unit at which the matrix begins)."""
    tile = _packing_tile(fmt)
    block_bytes = fmt.quant_bytes if isinstance(fmt, BlockType) else 1

    @region
    @named(f"pack_rows_{fmt.name}")
    def body(thread, team, rows, columns, quants, scales, first_row):
        raw, stride, n_rows = rows
        n_steps, first_block = columns
        n_blocks = quants.shape[1] // block_bytes
        first_group, end = first_row // GROUP, first_row + n_rows
        while True:
            group = first_group + claim(team, 1)
            start = group * GROUP
            if start >= end:
                return
            first, last = max(first_row - start, 0), min(end - start, GROUP) - 1
            tile((raw + (start - first_row) * stride, stride, first, last, n_steps, first_block,
                  address(quants) + group * quants.shape[1],
                  address(scales) + group * scales.shape[1], n_blocks))  # fmt: skip

    return body
