"""Q3_K and Q6_K: levels on both sides of 0, whose scales are signed numbers under one float16."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from kernels.emit.jit import jitted
from kernels.encoding.bits import (
    Block,
    inverse,
    nearest,
    put_half,
    write_pairs,
    write_upper_bits,
    write_wide_nibbles,
)
from kernels.encoding.lanes import Found, Lanes, Tile
from kernels.encoding.search import SCALE, best_scale
from kernels.encoding.tiles import Encoding, OfBlock, encoding_kernel


def _search(most: int) -> Callable[[Tile, Found], None]:
    """The value furthest from 0 gets the lowest level, or nearly."""

    def search(tile: Tile, found: Found) -> None:
        best_scale(
            tile, found, ends=[-most + tenths / 10 for tenths in range(-9, 10)],
            level_of=lambda x: x.rounded().clamped(-most, most - 1),
        )  # fmt: skip

    return search


def _level(most: int) -> Callable[[Lanes, OfBlock], Lanes]:
    def level(x: Lanes, of_block: OfBlock) -> Lanes:
        steps = (x * of_block(SCALE).inverse()).rounded()
        return steps.clamped(-most, most - 1) + float(most)

    return level


@jitted
def put_signed_factor(out, at, found, lane, n, most):
    """Writes the float16 of `n` scales, and replaces what is found by numbers from -most to
    most - 1 under it; returns its value."""
    top = np.float32(0)
    for i in range(lane, lane + n):
        if abs(found[SCALE, i]) > abs(top):
            top = found[SCALE, i]
    d = put_half(out, at, top / np.float32(-most))
    by = inverse(d)
    for i in range(lane, lane + n):
        found[SCALE, i] = nearest(found[SCALE, i] * by, -most, most - 1)
    return d


@jitted
def _write_six_bits(out, at, found, lane):
    d = put_signed_factor(out, at + 108, found, lane, 16, 32)
    for i in range(12):
        out[at + 96 + i] = 0
    for i in range(16):
        number = np.uint8(np.int32(found[SCALE, lane + i]) + 32)
        out[at + 96 + i % 8] |= (number & 15) << (4 * (i // 8))
        out[at + 104 + i % 4] |= (number >> 4) << (2 * (i // 4))
        found[SCALE, lane + i] *= d


@jitted
def _write_bytes(out, at, found, lane):
    d = put_signed_factor(out, at + 208, found, lane, 16, 128)
    for i in range(16):
        out[at + 192 + i] = np.uint8(np.int32(found[SCALE, lane + i]) & 255)
        found[SCALE, lane + i] *= d


def _write_q3_k(block: Block) -> None:
    write_upper_bits(block, 0, 2)
    write_pairs(block, 32, 0)


def _write_q6_k(block: Block) -> None:
    write_wide_nibbles(block, 0, 64)
    write_pairs(block, 128, 4)


Q3_K = Encoding("q3_k", 256, 110, 16, _search(4), _write_six_bits, _level(4), _write_q3_k)
Q6_K = Encoding("q6_k", 256, 210, 16, _search(32), _write_bytes, _level(32), _write_q6_k)

ENCODE = {f.name: encoding_kernel(f) for f in (Q3_K, Q6_K)}
"""By the type: the kernel that encodes it."""
