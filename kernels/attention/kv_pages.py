"""The layout of a KV page: 32 tokens' keys and values of one head, as floats, half floats or 8-bit
blocks.

f16 and f32, words of 16 and 32 bits: keys (head_dim, 32), values (32, padded head_dim).

q8_0, bytes: the same two tables as signed bytes, each followed by half floats that scale them, one
for a token's block of 32 values (the last block may be shorter): (n_blocks, 32 tokens). As in
ggml's q8_0, q = rint(x * 127 / max|x|) and the scale is max|x| / 127.

Keys lie transposed, so that one vector holds 16 tokens and scores need no sums across lanes. A
kernel tells the type by the size of a word, which is known when it is compiled: compiled code holds
no test of it.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from kernels.arrays import aligned
from kernels.emit.intrinsics import f16_to_f32, f32_bits, f32_from_bits, f32_to_f16, fma
from kernels.emit.jit import jitted

PAGE = 32  # tokens of a page
BLOCK = 32  # values of a token that share a scale, in q8_0
LANES = 16
SMALLEST = np.float32(1e-30)  # of a block's largest value: below, all of it is zero
ROUND = np.float32(12582912.0)  # 1.5 * 2^23: adding it leaves the nearest integer in the low bits

WORDS: dict[str, np.dtype[Any]] = {
    "f16": np.dtype(np.uint16), "q8_0": np.dtype(np.uint8), "f32": np.dtype(np.uint32),
}  # fmt: skip
"""The words that a page of each type consists of."""


class KvPages(NamedTuple):
    """Keys and values of all layers: (n_layers, n_pages, n_kv_heads, words of a page)."""

    keys: np.ndarray
    values: np.ndarray


@jitted
def padded(head_dim: int) -> int:
    """The values of a token with its padding to whole vectors."""
    return -(-head_dim // LANES) * LANES


def page_words(kind: str, head_dim: int) -> tuple[int, int]:
    """Words of one head's page of keys, and of values."""
    scales = 2 * PAGE * -(-head_dim // BLOCK) if kind == "q8_0" else 0
    return PAGE * head_dim + scales, PAGE * padded(head_dim) + scales


def page_bytes(kind: str, n_layers: int, n_kv_heads: int, head_dim: int) -> int:
    """Bytes of one page over all layers and heads."""
    return n_layers * n_kv_heads * sum(page_words(kind, head_dim)) * WORDS[kind].itemsize


def kv_pages(kind: str, n_layers: int, n_pages: int, n_kv_heads: int, head_dim: int) -> KvPages:
    """Returns pages of zeros."""
    keys, values = page_words(kind, head_dim)
    return KvPages(
        aligned((n_layers, n_pages, n_kv_heads, keys), WORDS[kind]),
        aligned((n_layers, n_pages, n_kv_heads, values), WORDS[kind]),
    )


# -- one token of a page ---------------------------------------------------------------------


@jitted
def _quantize(x, page, first, step, scales, slot):
    """Writes x (n,) float32 to every step-th byte of a page from `first` on, and its scales."""
    for begin in range(0, x.size, BLOCK):
        end = min(begin + BLOCK, x.size)
        top = np.float32(0)
        for d in range(begin, end):
            top = max(top, abs(x[d]))
        inverse = np.float32(127) / top if top > SMALLEST else np.float32(0)
        for d in range(begin, end):
            page[first + d * step] = f32_bits(fma(x[d], inverse, ROUND)) & 0xFF
        half = f32_to_f16(top / np.float32(127))
        at = scales + 2 * (begin // BLOCK * PAGE + slot)
        page[at], page[at + 1] = half & 0xFF, half >> 8


@jitted
def _put(page, at, x):
    """Writes a float32 number as a word."""
    if page.itemsize == 4:
        page[at] = f32_bits(x)
    else:
        page[at] = f32_to_f16(x)


@jitted
def _get(page, at):
    """Reads a word as a float32 number."""
    if page.itemsize == 4:
        return f32_from_bits(np.int32(page[at]))
    return f16_to_f32(np.uint16(page[at]))


@jitted
def put_key(page, slot, key):
    """Writes a token's key (head_dim,) float32 to its slot."""
    if page.itemsize == 1:
        _quantize(key, page, slot, PAGE, key.size * PAGE, slot)
    else:
        for d in range(key.size):
            _put(page, d * PAGE + slot, key[d])


@jitted
def put_value(page, slot, value, width):
    """Writes a token's value (head_dim,) float32 to its slot; `width` is the padded head_dim."""
    if page.itemsize == 1:
        _quantize(value, page, slot * width, 1, PAGE * width, slot)
    else:
        for d in range(value.size):
            _put(page, slot * width + d, value[d])


@jitted
def get_key(page, slot, key):
    """Reads a token's key (head_dim,) float32."""
    if page.itemsize == 1:
        for d in range(key.size):
            at = key.size * PAGE + 2 * (d // BLOCK * PAGE + slot)
            scale = f16_to_f32(np.uint16(page[at] | page[at + 1] << 8))
            key[d] = np.float32(np.int8(page[d * PAGE + slot])) * scale
    else:
        for d in range(key.size):
            key[d] = _get(page, d * PAGE + slot)


@jitted
def get_value(page, slot, value, width):
    """Reads a token's value (head_dim,) float32; `width` is the padded head_dim."""
    if page.itemsize == 1:
        for d in range(value.size):
            at = PAGE * width + 2 * (d // BLOCK * PAGE + slot)
            scale = f16_to_f32(np.uint16(page[at] | page[at + 1] << 8))
            value[d] = np.float32(np.int8(page[slot * width + d])) * scale
    else:
        for d in range(value.size):
            value[d] = _get(page, slot * width + d)


@jitted
def _copy_scales(source, old, target, new, scales, n):
    for begin in range(0, n, BLOCK):
        row = scales + 2 * (begin // BLOCK * PAGE)
        for byte in range(2):
            target[row + 2 * new + byte] = source[row + 2 * old + byte]


@jitted
def copy_key(source, old, target, new, head_dim):
    """Copies a token's key from slot `old` of a page to slot `new` of the same page or another."""
    for d in range(head_dim):
        target[d * PAGE + new] = source[d * PAGE + old]
    if source.itemsize == 1:
        _copy_scales(source, old, target, new, PAGE * head_dim, head_dim)


@jitted
def copy_value(source, old, target, new, width):
    """Copies a token's value as copy_key does; `width` is the padded head_dim."""
    for d in range(width):
        target[new * width + d] = source[old * width + d]
    if source.itemsize == 1:
        _copy_scales(source, old, target, new, PAGE * width, width)
