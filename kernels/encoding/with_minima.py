"""Q2_K, Q4_K and Q5_K: levels from a minimum on, whose scales and minima are numbers of a few bits
under a float16 each."""

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
from kernels.encoding.search import MINIMUM, SCALE, best_scale_and_minimum
from kernels.encoding.tiles import Encoding, OfBlock, encoding_kernel


def _search(
    most: int, first: int, weigh: Callable[[Lanes, Lanes], Lanes]
) -> Callable[[Tile, Found], None]:
    """Guesses steps of a tenth of a level, from `first` tenths more than `most` on."""
    guesses = [most + tenths / 10 for tenths in range(first, 11)]

    def search(tile: Tile, found: Found) -> None:
        best_scale_and_minimum(tile, found, most=most, guesses=guesses, weigh=weigh)

    return search


def _size(x: Lanes, mean: Lanes) -> Lanes:
    return abs(x)


def _size_and_mean(x: Lanes, mean: Lanes) -> Lanes:
    return abs(x) + mean


def _level(most: int) -> Callable[[Lanes, OfBlock], Lanes]:
    def level(x: Lanes, of_block: OfBlock) -> Lanes:
        steps = (x - of_block(MINIMUM)) * of_block(SCALE).inverse()
        return steps.rounded().clamped(0, most)

    return level


@jitted
def _put_factors(out, at, found, lane, n, most):
    """Writes the float16 of all scales and that of all minima; replaces what is found by numbers
    from 0 to `most` under them."""
    scale, minimum = np.float32(0), np.float32(0)
    for i in range(lane, lane + n):
        scale, minimum = max(scale, found[SCALE, i]), max(minimum, -found[MINIMUM, i])
    d = put_half(out, at, scale / np.float32(most))
    d_min = put_half(out, at + 2, minimum / np.float32(most))
    by, by_min = inverse(d), inverse(d_min)
    for i in range(lane, lane + n):
        found[SCALE, i] = nearest(found[SCALE, i] * by, 0, most)
        found[MINIMUM, i] = nearest(-found[MINIMUM, i] * by_min, 0, most)
    return d, d_min


@jitted
def _multiply(found, lane, n, d, d_min):
    """Puts the values of the numbers in their place."""
    for i in range(lane, lane + n):
        found[SCALE, i], found[MINIMUM, i] = d * found[SCALE, i], -d_min * found[MINIMUM, i]


@jitted
def _write_nibbles(out, at, found, lane):
    d, d_min = _put_factors(out, at + 80, found, lane, 16, 15)
    for i in range(16):
        out[at + i] = np.uint8(found[SCALE, lane + i]) | (np.uint8(found[MINIMUM, lane + i]) << 4)
    _multiply(found, lane, 16, d, d_min)


@jitted
def _write_six_bits(out, at, found, lane):
    d, d_min = _put_factors(out, at, found, lane, 8, 63)
    s = at + 4
    for i in range(4):
        low, low_min = np.uint8(found[SCALE, lane + i]), np.uint8(found[MINIMUM, lane + i])
        high, high_min = (
            np.uint8(found[SCALE, lane + 4 + i]),
            np.uint8(found[MINIMUM, lane + 4 + i]),
        )
        out[s + i] = low | ((high >> 4) << 6)
        out[s + 4 + i] = low_min | ((high_min >> 4) << 6)
        out[s + 8 + i] = (high & 15) | ((high_min & 15) << 4)
    _multiply(found, lane, 8, d, d_min)


def _write_q2_k(block: Block) -> None:
    write_pairs(block, 16, 0)


def _write_q4_k(block: Block) -> None:
    write_wide_nibbles(block, 16, 32)


def _write_q5_k(block: Block) -> None:
    write_upper_bits(block, 16, 4)
    write_wide_nibbles(block, 48, 32)


Q2_K = Encoding(
    "q2_k", 256, 84, 16, _search(3, -5, _size), _write_nibbles, _level(3),
    _write_q2_k,
)  # fmt: skip
Q4_K = Encoding(
    "q4_k", 256, 144, 32, _search(15, -10, _size_and_mean), _write_six_bits,
    _level(15), _write_q4_k,
)  # fmt: skip
Q5_K = Encoding(
    "q5_k", 256, 176, 32, _search(31, -5, _size_and_mean), _write_six_bits,
    _level(31), _write_q5_k,
)  # fmt: skip

ENCODE = {f.name: encoding_kernel(f) for f in (Q2_K, Q4_K, Q5_K)}
"""By the type: the kernel that encodes it."""
