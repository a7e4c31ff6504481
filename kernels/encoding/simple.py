"""Q4_0, Q4_1, Q5_0, Q5_1 and Q8_0, bit for bit as ggml's reference makes them (ggml-quants.c): the
scale comes from the value furthest from 0, or from both ends."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from kernels.emit.jit import jitted
from kernels.encoding.bits import Block, put_half, write_fifth_bits, write_nibbles
from kernels.encoding.lanes import Found, Lanes, Sum, Tile, larger, smaller, where
from kernels.encoding.search import INVERSE, LEAST, MINIMUM, SCALE, furthest
from kernels.encoding.tiles import Encoding, OfBlock, encoding_kernel

Search = Callable[[Tile, Found], None]
Level = Callable[[Lanes, OfBlock], Lanes]


def _keep(found: Found, scale: Lanes) -> None:
    """The inverse is that of the scale before it becomes a float16."""
    found.set(SCALE, scale)
    found.set(INVERSE, scale.inverse())


def _furthest_at(level: float) -> Search:
    def search(tile: Tile, found: Found) -> None:
        _keep(found, furthest(tile) / level)

    return search


def _largest_at(level: float) -> Search:
    def search(tile: Tile, found: Found) -> None:
        _keep(found, abs(furthest(tile)) / level)

    return search


def _between_ends(most: float) -> Search:
    def search(tile: Tile, found: Found) -> None:
        low, high = Sum(tile.e, -LEAST), Sum(tile.e, LEAST)
        with tile.each() as x:
            low.set(smaller(x, low.get()))
            high.set(larger(x, high.get()))
        _keep(found, (high.get() - low.get()) / most)
        found.set(MINIMUM, low.get())

    return search


def _from_zero(zero: int) -> Level:
    """Levels from 0 on, with 0 at `zero`; halves are rounded up."""

    def level(x: Lanes, of_block: OfBlock) -> Lanes:
        whole = (x * of_block(INVERSE) + (zero + 0.5)).truncated()
        return whole.clamped(0, 2 * zero - 1)

    return level


def _from_minimum(most: int) -> Level:
    def level(x: Lanes, of_block: OfBlock) -> Lanes:
        whole = ((x - of_block(MINIMUM)) * of_block(INVERSE) + 0.5).truncated()
        return whole.clamped(0, most)

    return level


def _rounded_away(x: Lanes, of_block: OfBlock) -> Lanes:
    """Halves are rounded away from 0."""
    scaled = x * of_block(INVERSE)
    size = abs(scaled)
    whole = size.truncated()
    level = whole + ((size - whole) * 2.0).truncated()
    return where(scaled < 0.0, -level, level)


@jitted
def _write_scale(out, at, found, lane):
    put_half(out, at, found[SCALE, lane])


@jitted
def _write_scale_and_minimum(out, at, found, lane):
    put_half(out, at, found[SCALE, lane])
    put_half(out, at + 2, found[MINIMUM, lane])


def _write_q5(at: int) -> Callable[[Block], None]:
    def write(block: Block) -> None:
        write_fifth_bits(block, at)
        write_nibbles(block, at + 4)

    return write


def _write_bytes(block: Block) -> None:
    for first in (0, 16):
        block.put(2 + first, [block.levels(first)])


def _kernel(name: str, raw_bytes: int, search: Search, write_scales: Any, *rest: Any) -> Any:
    return encoding_kernel(Encoding(name, 32, raw_bytes, 32, search, write_scales, *rest))


ENCODE = {
    "q4_0": _kernel(
        "q4_0", 18, _furthest_at(-8), _write_scale, _from_zero(8), lambda b: write_nibbles(b, 2)
    ),
    "q4_1": _kernel(
        "q4_1", 20, _between_ends(15), _write_scale_and_minimum, _from_minimum(15),
        lambda b: write_nibbles(b, 4),
    ),
    "q5_0": _kernel("q5_0", 22, _furthest_at(-16), _write_scale, _from_zero(16), _write_q5(2)),
    "q5_1": _kernel(
        "q5_1", 24, _between_ends(31), _write_scale_and_minimum, _from_minimum(31), _write_q5(4)
    ),
    "q8_0": _kernel("q8_0", 34, _largest_at(127), _write_scale, _rounded_away, _write_bytes),
}  # fmt: skip
"""By the type: the kernel that encodes it."""
