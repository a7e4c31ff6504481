"""Quantized weights times few tokens: integer dot products of 32 columns, then one float step."""

from __future__ import annotations

from functools import partial
from typing import Any

from kernels.emit.emitter import Emit, Variable
from kernels.emit.intrinsics import address
from kernels.emit.jit import jitted, named
from kernels.emit.vectors import F32X16, I32, I32X16, Value
from kernels.matmul.batches import batch_of, n_batches
from kernels.matmul.dots import block_dots
from kernels.matmul.runs import (
    Pointers,
    chunk_of_groups,
    groups_at_once,
    run_of_groups,
)
from kernels.matmul.sums import TileSums
from kernels.matmul.tiles import FEW, MANY_FROM, NEAR_BYTES, n_tiles, tile_bounds
from kernels.team import claim, region
from kernels.weights.layout import BLOCK, GROUP, BlockType
from kernels.weights.unpack import Scales, is_signed, quants

ONE_GROUP: dict[int, int] = {}
"""A tile works on one group at once, whatever its tokens: its integer sums begin anew at every
block, and memory gives more to a single stream (measured: up to twice as much as to four)."""

MOST_SHARERS = 8
"""Tiles that share in fetching weights; a power of two."""

# -- the float steps: the only ones there are, so that all kernels give the same bits ----------


def add_block(e: Emit, acc: Variable, dots: list[Value], step: Value, s: Scales) -> None:
    """acc += the sums of a block (one, or one for each 16 columns) times the scales of both
    sides."""
    if len(dots) == 1:
        scaled = e.b.fmul(e.to_f32(dots[0]), step)
        acc.set(e.fma(scaled, s.factors[0], acc.get()))
        return
    both = e.b.fmul(e.to_f32(dots[0]), s.factors[0])
    both = e.fma(e.to_f32(dots[1]), s.factors[1], both)
    acc.set(e.fma(both, step, acc.get()))


def add_minima(e: Emit, acc: Variable, t: int, weighted: Value, s: Scales) -> None:
    """acc += token t's weighted sums of activations times the minima of a block."""
    first = 12 * t + (8 if len(s.minima) == 1 else 0)
    for i, minimum in enumerate(s.minima):
        weight = e.load_splat_f32(e.at(weighted, first + 4 * i))
        acc.set(e.fma(weight, minimum, acc.get()))


# -- a tile ----------------------------------------------------------------------------------


class _BlockTile:
    """Emits `groups` groups of 16 rows from group `first` on, times a tile of `tokens` tokens."""

    def __init__(
        self, fmt: BlockType, e: Emit, p: Pointers, tokens: int, groups: int, first: Value
    ) -> None:
        self.e, self.fmt, self.p, self.tokens, self.groups = e, fmt, p, tokens, groups
        self.numbers = [e.b.add(first, e.i64(g)) for g in range(groups)]
        self.w_base = [e.b.add(p.quants, e.b.mul(n, p.quant_stride)) for n in self.numbers]
        self.s_base = [e.b.add(p.scales, e.b.mul(n, p.scale_stride)) for n in self.numbers]
        self.sums = TileSums(e, p.sums, tokens, groups)

    def emit(self) -> None:
        e, p, n = self.e, self.p, self.fmt.unit_blocks
        if n == 1:
            with self.sums.steps(p.n_steps) as block:
                self._block(block, [unit_scales[0] for unit_scales in self._scales(block)])
        else:
            end = e.b.add(p.first_block, p.n_steps)  # of the matrix, in blocks of its units
            with e.loop(e.b.sdiv(e.b.add(end, e.i64(n - 1)), e.i64(n))) as unit:
                begin = e.b.mul(unit, e.i64(n))
                is_cut = e.b.icmp_signed("<", begin, p.first_block)
                first = e.b.select(is_cut, p.first_block, begin)
                stop = e.b.add(begin, e.i64(n))
                stop = e.b.select(e.b.icmp_signed("<", end, stop), end, stop)
                self._blocks(begin, first, stop, self._scales(unit))
        self.sums.store(p.out, p.out_stride, self.numbers)

    def _scales(self, unit: Value) -> list[list[Scales]]:
        """The scales of a unit's blocks, of each group."""
        e, fmt = self.e, self.fmt
        where = e.b.mul(unit, e.i64(fmt.scale_bytes))
        with self._turn(unit):
            for base in self.s_base:
                self._prefetch(base, where, self.p.scales_ahead, fmt.scale_bytes)
        return [fmt.unpack_scales(e, e.b.add(base, where)) for base in self.s_base]

    def _blocks(self, begin: Value, first: Value, stop: Value, found: list[list[Scales]]) -> None:
        """The blocks `first` to `stop` of the unit that begins at block `begin` in a loop, their
        scales by way of the stack: unrolled, the code would not fit the instruction cache."""
        e, n, n_factors = self.e, self.fmt.unit_blocks, BLOCK // self.fmt.sub
        width = n_factors * (2 if self.fmt.has_min else 1)
        stacked = e.stack(F32X16, self.groups * n * width)
        for g, unit_scales in enumerate(found):
            for i, s in enumerate(unit_scales):
                for k, v in enumerate([*s.factors, *s.minima]):
                    e.store(v, e.at(stacked, 64 * ((g * n + i) * width + k)), 64)
        with e.loop(e.b.sub(stop, first)) as turn:
            number = e.b.add(first, turn)
            at = e.b.add(stacked, e.b.mul(e.b.sub(number, begin), e.i64(64 * width)))
            here = []
            for g in range(self.groups):
                of_group = 64 * g * n * width
                v = [e.load(F32X16, e.at(at, of_group + 64 * k), 64) for k in range(width)]
                here.append(Scales(v[:n_factors], v[n_factors:]))
            self._block(e.b.sub(number, self.p.first_block), here)
            self.sums.end_step()

    def _block(self, block: Value, factors: list[Scales]) -> None:
        """32 columns: integer dot products, then one float step for each token and group."""
        e, p, tokens = self.e, self.p, self.tokens
        a_quants = e.b.add(p.a_quants, e.b.mul(block, e.i64(tokens * BLOCK)))
        a_scales = e.b.add(p.a_scales, e.b.mul(block, e.i64(tokens * 4)))
        sums_at = e.b.mul(block, e.i64(tokens * 12))
        starts = [self._starts(e.b.add(p.a_sums, sums_at), t) for t in range(tokens)]
        weighted = e.b.add(p.a_weighted, sums_at)
        steps = [e.load_splat_f32(e.at(a_scales, 4 * t)) for t in range(tokens)]
        offset = e.b.mul(block, e.i64(self.fmt.quant_bytes))
        with self._turn(block):
            for base in self.w_base:
                self._prefetch(base, offset, p.quants_ahead, self.fmt.quant_bytes)
        for g in range(self.groups):
            where = e.b.add(self.w_base[g], offset)
            dots = block_dots(e, self.fmt, quants(e, self.fmt, where), a_quants, starts)
            for t in range(tokens):
                add_block(e, self.sums.acc[g][t], dots[t], steps[t], factors[g])
                add_minima(e, self.sums.acc[g][t], t, weighted, factors[g])

    def _turn(self, step: Value) -> Any:
        """A context whose code runs only in the steps in which this tile fetches weights."""
        e = self.e
        return e.b.if_then(e.b.icmp_signed("==", e.b.and_(step, self.p.pace), e.i64(0)))

    def _prefetch(self, base: Value, offset: Value, ahead: Value, n_bytes: int) -> None:
        """Fetches lines further on: the processor's own prefetching does not keep memory busy."""
        self.e.prefetch(self.e.b.add(self.e.b.add(base, offset), ahead), n_bytes)

    def _starts(self, sums: Value, t: int) -> list[Value]:
        """The start values of a token's integer sums: minus the offset times the activations."""
        e, n = self.e, BLOCK // self.fmt.sub
        if not self.fmt.offset or is_signed(e, self.fmt):
            return [e.constant(I32X16, 0)] * n
        shift = e.constant(I32X16, self.fmt.offset.bit_length() - 1)
        first = 12 * t + (8 if n == 1 else 0)
        return [
            e.b.shl(e.splat(e.load(I32, e.at(sums, first + 4 * i), 4)), shift) for i in range(n)
        ]


def emit_tile(fmt: BlockType, e: Emit, p: Pointers, tokens: int, groups: int, first: Value) -> None:
    """Emits a tile of one quant type; bound to the type, it is an EmitTile."""
    _BlockTile(fmt, e, p, tokens, groups, first).emit()


# -- the matrix ------------------------------------------------------------------------------


@jitted
def _share(number, n_rows):
    """Returns (mask, further): tile `number` of some rows fetches weights in steps whose number
    has no bit of the mask, and those of `further` steps later. The tiles read the same groups in
    turn: memory has work all the time if each of them fetches a part of the next groups."""
    n_sharers = 1
    while 2 * n_sharers <= min(n_tiles(n_rows, FEW), MOST_SHARERS):
        n_sharers *= 2
    return (n_sharers - 1, number) if number < n_sharers else (-1, 0)


def block_matmul(fmt: BlockType) -> Any:
    """A region that multiplies a matrix of one quant type with any number of tokens."""
    tile = run_of_groups(fmt.name, partial(emit_tile, fmt), 1, FEW, ONE_GROUP)
    quant_bytes, scale_bytes = fmt.quant_bytes, fmt.scale_bytes

    @region
    @named(f"multiply_rows_{fmt.name}")
    def body(thread, team, w, a, n_tokens, out, column, sums, batches):
        quants, scales, first_block = w
        unit, kind, high, wide, wide_stride = sums
        a_quants, a_scales, a_sums, a_weighted = a
        table, n_groups, stride = batches
        n_blocks = quants.shape[1] // quant_bytes
        chunk = chunk_of_groups(n_groups * n_batches(table), team[10], n_tokens)
        n_chunks = -(-n_groups // chunk)
        n_pieces = n_chunks * n_batches(table)
        while True:
            piece = claim(team, 1)
            if piece >= n_pieces:
                return
            matrix, first_row, n_rows = batch_of(table, piece // n_chunks, n_tokens)
            if n_rows >= MANY_FROM:
                continue
            first = piece % n_chunks * chunk
            count = min(chunk, n_groups - first)
            # All tokens in turn see a few groups, while the next few are fetched.
            size, quants_ahead, scales_ahead = count, NEAR_BYTES, NEAR_BYTES // 8
            if n_rows > FEW:
                size = groups_at_once(quants.shape[1])
                quants_ahead, scales_ahead = size * quants.shape[1], size * scales.shape[1]
            for group in range(first, first + count, size):
                n = min(size, first + count - group)
                w_at = address(quants) + (matrix * stride + group) * quants.shape[1]
                s_at = address(scales) + (matrix * stride + group) * scales.shape[1]
                where = address(out) + (column + group * GROUP) * 4
                for number in range(n_tiles(n_rows, FEW)):
                    start, end = tile_bounds(number, n_rows, FEW)
                    start, end = first_row + start, first_row + end
                    done = start * n_blocks
                    mask, further = _share(number, n_rows)
                    tile(end - start, (n_blocks, n, w_at, s_at, quants.shape[1],
                                  scales.shape[1], address(a_quants) + done * BLOCK,
                                  address(a_scales) + done * 4, address(a_sums) + done * 12,
                                  address(a_weighted) + done * 12,
                                  where + start * out.shape[1] * 4, out.shape[1] * 4,
                                  quants_ahead + further * quant_bytes,
                                  scales_ahead + further * scale_bytes, mask, first_block, unit,
                                  kind, high, wide + group + start * wide_stride,
                                  wide_stride))  # fmt: skip

    return body
