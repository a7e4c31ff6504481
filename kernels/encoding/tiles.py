"""The kernel that encodes rows of a type. Scales are searched for in sixteen blocks at a time, each
with a lane of its own; then the values of each block are rounded with what was found."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from kernels.emit.emitter import Emit
from kernels.emit.intrinsics import address
from kernels.emit.jit import intrinsic, jitted, kernel_of, named
from kernels.emit.later import types
from kernels.emit.vectors import I8X16, I32X16
from kernels.encoding.bits import Block
from kernels.encoding.lanes import N_LANES, Found, Lanes, Tile

OfBlock = Callable[[int], Lanes]  # by its row: what was found for the block, in all lanes


@dataclass(frozen=True, slots=True)
class Encoding:
    """How units of a type are made: `values` numbers in `raw_bytes`, in blocks of `block` numbers
    with a scale each.

    `search` emits what finds the blocks' scales. `write_scales`(out, at, found, lane) is jitted: it
    writes those of the unit whose first block is in a lane, and puts in their place what they are
    when read again. `level` emits the rounding of sixteen values of a block, and `write_quants` the
    writing of a unit's levels, which are bytes in the order of the values.
    """

    name: str
    values: int
    raw_bytes: int
    block: int
    search: Callable[[Tile, Found], None]
    write_scales: Any
    level: Callable[[Lanes, OfBlock], Lanes]
    write_quants: Callable[[Block], None]


def encoding_kernel(f: Encoding) -> Any:
    """The kernel encode(x, (out, rest, tile, found, q)) of a type: flat float32 to flat bytes. The
    other arrays are scratch buffers. To be called at the top level of a module."""
    search, write_quants, write_scales = _search(f), _write_quants(f), f.write_scales
    values, raw_bytes, n_blocks = f.values, f.raw_bytes, f.values // f.block
    n_units = N_LANES // n_blocks

    @jitted
    @named(f"encode_units_{f.name}")
    def encode_units(x, args):
        out, rest, tile, found, q = args
        for first in range(0, out.size // raw_bytes, n_units):
            n, source = n_units, address(x) + 4 * first * values
            if out.size // raw_bytes - first < n_units:
                n, source = out.size // raw_bytes - first, address(rest)
                for i in range(n * values):
                    rest[i] = x[first * values + i]
            search(source, address(tile), address(found))
            for unit in range(n):
                at, lane = (first + unit) * raw_bytes, unit * n_blocks
                write_scales(out, at, found, lane)
                write_quants(
                    source + 4 * unit * values, address(found) + 4 * lane, address(q),
                    address(out) + at,
                )  # fmt: skip

    return kernel_of(f"encode_{f.name}", encode_units)


def _search(f: Encoding) -> Any:
    """A function of the addresses of sixteen blocks, of a tile and of what is found."""

    @intrinsic
    def search(typingctx: Any, x: Any, tile: Any, found: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            x, tile, found = args
            blocks = Tile(Emit(builder), tile, f.block)
            blocks.fill(x)
            f.search(blocks, Found(blocks.e, found))
            return context.get_dummy_value()

        return types.void(types.int64, types.int64, types.int64), codegen

    return search


def _write_quants(f: Encoding) -> Any:
    """A function of the addresses of a unit's values, of what was found for its first block, of a
    buffer for its levels, and of the unit."""

    @intrinsic
    def write_quants(typingctx: Any, x: Any, found: Any, q: Any, out: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            e = Emit(builder)
            x, found, q, out = args
            for at in range(0, f.values, N_LANES):
                values = Lanes(e, e.load_f32(e.at(x, 4 * at)))
                level = f.level(values, partial(Found(e, found).of_block, block=at // f.block))
                whole = e.b.trunc(e.b.fptosi(level.value, I32X16), I8X16)
                e.store(whole, e.at(q, at), N_LANES)
            f.write_quants(Block(e, q, out))
            return context.get_dummy_value()

        return types.void(types.int64, types.int64, types.int64, types.int64), codegen

    return write_quants
