"""What changes while a rank computes: KV pages and scratch buffers, all allocated once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dllama.kv_type import KvType
from dllama.runtime.weights import Weights
from dllama.step import MAX_CANDIDATES
from kernels.activations import activations
from kernels.arrays import aligned
from kernels.attention.causal import Scratch, scratch
from kernels.attention.kv_pages import PAGE, KvPages, kv_pages
from kernels.weights.layout import GROUP, Activations


@dataclass(frozen=True, slots=True)
class RunState:
    """Buffers for up to max_tokens (T) rows of a step and max_logits (R) rows of logits.

    The arrays never change; their contents do. Columns of `mixed` and `hidden` that are another
    rank's stay zero for ever.
    """

    kv: KvPages
    max_pages: int  # of one sequence
    x: np.ndarray  # (T, dim): the residual stream
    cosines: np.ndarray  # (T, head_dim / 2)
    sines: np.ndarray
    tiles: np.ndarray  # (T, 3) int32
    rooms: Scratch  # attention's scratch
    normed: Activations  # (T, dim)
    qkv: np.ndarray  # (T, width)
    mixed: Activations  # (T + 1, columns of wo): attention's output
    own_mixed: np.ndarray  # (T, columns of wo): the same, beginning at this rank's first column
    gate_up: np.ndarray  # (T, width)
    hidden: Activations  # (T, columns of w2)
    partial: np.ndarray  # (T, dim up to whole groups): what all_reduce adds up
    last: np.ndarray  # (R, dim): the rows whose logits are wanted
    logits: np.ndarray  # (R, local vocabulary up to whole groups)
    ids: np.ndarray  # (R, MAX_CANDIDATES) int32
    values: np.ndarray  # (R, MAX_CANDIDATES)
    tops: np.ndarray  # (R,)
    sums: np.ndarray  # (R,)


def allocate(
    weights: Weights, *, kv_type: KvType, n_pages: int, max_tokens: int, max_logits: int,
    n_threads: int,
) -> RunState:  # fmt: skip
    """Buffers for one rank; the KV pages are by far the largest."""
    config, first = weights.config, weights.layers[0]
    f32 = np.float32
    half = config.head_dim // 2
    mixed = activations(max_tokens + 1, first.wo.cols if first.wo else 0)
    before = first.wo.first_own_col if first.wo else 0
    longest = min(config.max_seq_len, n_pages * PAGE)
    return RunState(
        max_pages=-(-longest // PAGE),
        kv=kv_pages(kv_type, config.n_layers, n_pages, weights.n_kv_heads, config.head_dim),
        x=aligned((max_tokens, config.dim), f32),
        cosines=aligned((max_tokens, half), f32),
        sines=aligned((max_tokens, half), f32),
        tiles=aligned((max_tokens, 3), np.int32),
        rooms=scratch(n_threads, config.head_dim, longest),
        normed=activations(max_tokens, config.dim),
        qkv=aligned((max_tokens, first.qkv.width if first.qkv else 0), f32),
        mixed=mixed,
        own_mixed=_beginning_at(mixed.rows, before),
        gate_up=aligned((max_tokens, first.gate_up.width if first.gate_up else 0), f32),
        hidden=activations(max_tokens, first.w2.cols if first.w2 else 0),
        partial=aligned((max_tokens, -(-config.dim // GROUP) * GROUP), f32),
        last=aligned((max_logits, config.dim), f32),
        logits=aligned((max_logits, weights.wcls.width if weights.wcls else 0), f32),
        ids=aligned((max_logits, MAX_CANDIDATES), np.int32),
        values=aligned((max_logits, MAX_CANDIDATES), f32),
        tops=aligned(max_logits, f32),
        sums=aligned(max_logits, f32),
    )


def _beginning_at(rows: np.ndarray, col: int) -> np.ndarray:
    """All rows but the last, each from column `col` on and into the row behind: an array of the
    same width, without a gap, as kernels want it."""
    n, width = rows.shape
    shifted: np.ndarray = rows.reshape(-1)[col : col + (n - 1) * width].reshape(n - 1, width)
    return shifted
