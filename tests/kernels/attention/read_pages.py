"""Keys and values as KV pages hold them, in NumPy: what oracles compute with."""

from __future__ import annotations

import numpy as np

from kernels.attention.kv_pages import BLOCK, PAGE, KvPages, padded


def numbers_of(words: np.ndarray, rows: int, *, by_token: bool) -> np.ndarray:
    """Pages (..., words) to (..., 32 tokens, rows) float64; rows are a token's values."""
    shape = (PAGE, rows) if by_token else (rows, PAGE)
    if words.dtype != np.uint8:
        floats = words.view(np.float16 if words.dtype == np.uint16 else np.float32)
        table = floats.reshape(*words.shape[:-1], *shape).astype(np.float64)
        return table if by_token else np.swapaxes(table, -1, -2)
    quants = words[..., : rows * PAGE].view(np.int8).reshape(*words.shape[:-1], *shape)
    scales = np.ascontiguousarray(words[..., rows * PAGE :]).view(np.float16)
    scales = scales.reshape(*words.shape[:-1], -1, PAGE).astype(np.float64)
    factors = np.swapaxes(np.repeat(scales, BLOCK, axis=-2)[..., :rows, :], -1, -2)
    return (quants if by_token else np.swapaxes(quants, -1, -2)) * factors


def read_pages(
    kv: KvPages, pages: np.ndarray, n: int, head_dim: int
) -> tuple[np.ndarray, np.ndarray]:
    """Keys (n_layers, n, n_heads, head_dim) and values of the n tokens on these pages."""
    found = []
    for words, rows, by_token in ((kv.keys, head_dim, False), (kv.values, padded(head_dim), True)):
        table = numbers_of(words[:, pages], rows, by_token=by_token)
        table = np.moveaxis(table, 2, 3)  # layers, pages, tokens, heads, rows
        flat = table.reshape(len(table), -1, *table.shape[3:])
        found.append(flat[:, :n, :, :head_dim])
    return found[0], found[1]
