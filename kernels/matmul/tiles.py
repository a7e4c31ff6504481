"""The cut of a matmul's tokens into tiles: evenly, none wider than the registers hold."""

from __future__ import annotations

from kernels.cpu import isa
from kernels.emit.jit import jitted

HAS_WIDE_REGISTERS = isa() == "avx512vnni"
FEW = 8 if HAS_WIDE_REGISTERS else 4
"""Most tokens of a tile where there are few of them."""

MANY_FROM = 96 if HAS_WIDE_REGISTERS else 1 << 62
"""Tokens from which on quantized weights are expanded before they are multiplied: the tokens share
the cost of that."""

MANY_FLOAT_FROM = 24 if HAS_WIDE_REGISTERS else 1 << 62
"""Tokens from which on tiles of float weights are wide."""

MANY_BLOCK, MANY_FLOAT = 6, 12
"""Most tokens of a tile of many, for quantized and for float weights: what the registers hold
beside two groups of weights."""

NEAR_BYTES = 4096
"""The distance ahead at which weights are fetched where memory has to keep pace."""


@jitted
def widest_tile(n_tokens, is_block):
    """Most tokens of a tile, for quantized weights or for float weights."""
    if is_block:
        return MANY_BLOCK if n_tokens >= MANY_FROM else FEW
    return MANY_FLOAT if n_tokens >= MANY_FLOAT_FROM else FEW


@jitted
def n_tiles(n_tokens, widest):
    """Tiles that hold all tokens."""
    return -(-n_tokens // widest)


@jitted
def tile_bounds(number, n_tokens, widest):
    """The first token of a tile, and the first after it; the wider tiles come first."""
    count = n_tiles(n_tokens, widest)
    width, n_wider = n_tokens // count, n_tokens % count
    start = number * width + min(number, n_wider)
    return start, start + width + (1 if number < n_wider else 0)


@jitted
def tile_number(token, n_tokens, widest):
    """The number of the tile that holds a token."""
    count = n_tiles(n_tokens, widest)
    width, n_wider = n_tokens // count, n_tokens % count
    beyond = token - n_wider * (width + 1)
    return token // (width + 1) if beyond < 0 else n_wider + beyond // width
