"""The mutable state of a rank: KV pages and scratch buffers, all allocated once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dllama.kv_type import KvType
from dllama.runtime.experts import ExpertState, allocate_experts
from dllama.runtime.inputs import inputs
from dllama.runtime.latent import LatentState, allocate_latent
from dllama.runtime.partial_sums import Parts, Squares, allocate_parts, allocate_squares
from dllama.runtime.weights import Weights
from dllama.step import MAX_CANDIDATES
from dllama.windows import window_pages
from kernels.arrays import aligned
from kernels.attention.causal import Scratch, scratch
from kernels.attention.kv_pages import PAGE, KvPages, kv_pages, padded
from kernels.attention.latent import latent_pages
from kernels.matmul.sums import FixedSums, Kind
from kernels.prepare import activations, wire_words
from kernels.recurrent.states import DeltaStates, delta_states
from kernels.weights.layout import GROUP, Activations


@dataclass(frozen=True, slots=True)
class RunState:
    """Buffers for up to max_tokens (T) rows of a step and max_logits (R) rows of logits, as large
    as the largest layer needs them. The arrays never change; their contents do.
    """

    kv: KvPages
    window_kv: KvPages  # of layers with a window
    max_pages: int  # of one sequence
    x: np.ndarray  # (T, dim): the residual stream
    cosines: np.ndarray  # (rotary tables, T, rotary_dim / 2)
    sines: np.ndarray
    tiles: np.ndarray  # (T, 3) int32
    scratch: Scratch  # of attention
    normed: Activations  # (T, dim)
    wire: np.ndarray  # (T, words): `normed` as ranks exchange it, where they divide up its rows
    qkv: np.ndarray  # (T, width)
    gates: np.ndarray  # (T, q_dim of the rank): of attention, where it has some
    gate_up: np.ndarray  # (T, width)
    mixed: dict[int, Activations]  # attention's output, by the columns of its reader
    hidden: dict[int, Activations]  # the feed-forward's inner state, likewise
    latent: LatentState | None
    states: DeltaStates | None
    delta_rows: np.ndarray  # (T, width)
    mixed_deltas: dict[int, Activations]  # results of gated delta nets, likewise
    experts: ExpertState | None
    partial: np.ndarray  # (T, dim up to whole groups): what all_reduce adds up, and the sum
    fixed: FixedSums | None  # of the same shape: what it adds up where sums are exact
    parts: Parts | None  # of layers whose half layers are added up together
    squares: Squares | None  # of norms over all heads
    last: np.ndarray  # (R, dim): the rows whose logits are wanted
    logits: np.ndarray  # (R, local vocabulary up to whole groups)
    ids: np.ndarray  # (R, MAX_CANDIDATES) int32
    values: np.ndarray  # (R, MAX_CANDIDATES)
    tops: np.ndarray  # (R, units of the local vocabulary)
    sums: np.ndarray  # likewise


def allocate(
    weights: Weights, *, kv_type: KvType, n_pages: int, max_tokens: int, max_logits: int,
    n_threads: int, kind: Kind,
) -> RunState:  # fmt: skip
    """Allocates the buffers of one rank; the KV pages are by far the largest."""
    config, f32 = weights.config, np.float32
    n_tables, half = weights.rotations.inv_freq.shape
    longest = min(config.max_seq_len, n_pages * PAGE)
    width = -(-config.dim // GROUP) * GROUP
    attended = config.head_dim if config.latent is None else padded(config.attended_dim)
    n_gates = weights.n_kv_heads * config.group_size * config.head_dim * config.has_output_gate
    heads = weights.n_kv_heads, config.head_dim
    n_window_pages = window_pages(config, n_pages, max_tokens)
    n_units = max(1, -(-weights.n_vocab // weights.units.vocab))
    return RunState(
        max_pages=-(-longest // PAGE),
        kv=_pages(weights, kv_type, n_pages),
        window_kv=kv_pages(kv_type, config.n_window_layers, n_window_pages, *heads),
        x=aligned((max_tokens, config.dim), f32),
        cosines=aligned((n_tables, max_tokens, half), f32),
        sines=aligned((n_tables, max_tokens, half), f32),
        tiles=aligned((max_tokens, 3), np.int32),
        scratch=scratch(n_threads, attended, longest),
        normed=activations(max_tokens, config.dim),
        wire=aligned((max_tokens, wire_words(config.dim)), f32),
        qkv=aligned((max_tokens, weights.widest("qkv")), f32),
        gates=aligned((max_tokens, n_gates), f32),
        gate_up=aligned((max_tokens, weights.widest("gate_up")), f32),
        mixed=inputs(weights.linears("wo"), max_tokens),
        hidden=inputs(weights.linears("w2"), max_tokens),
        latent=allocate_latent(weights, max_tokens),
        states=_states(weights, n_threads),
        delta_rows=aligned((max_tokens, weights.widest("delta")), f32),
        mixed_deltas=inputs(weights.linears("delta_out"), max_tokens),
        experts=allocate_experts(weights, max_tokens),
        partial=aligned((max_tokens, width), f32),
        fixed=FixedSums.zeros(max_tokens, width) if kind is Kind.FIXED else None,
        parts=allocate_parts(weights.family, max_tokens, width),
        squares=allocate_squares(weights.family, max_tokens),
        last=aligned((max_logits, config.dim), f32),
        logits=aligned((max_logits, weights.wcls.width if weights.wcls else 0), f32),
        ids=aligned((max_logits, MAX_CANDIDATES), np.int32),
        values=aligned((max_logits, MAX_CANDIDATES), f32),
        tops=aligned((max_logits, n_units), f32),
        sums=aligned((max_logits, n_units), f32),
    )


def _pages(weights: Weights, kv_type: KvType, n_pages: int) -> KvPages:
    config, n_heads = weights.config, weights.n_kv_heads
    n_layers = config.n_kv_layers - config.n_window_layers
    if config.latent is None:
        return kv_pages(kv_type, n_layers, n_pages, n_heads, config.head_dim)
    has_heads = n_heads > 0
    return latent_pages(kv_type, n_layers, n_pages, config.latent.width, has_heads=has_heads)


def _states(weights: Weights, n_threads: int) -> DeltaStates | None:
    """Allocates the states of one rank; None for a model whose layers all attend."""
    config, sizes = weights.config, weights.config.delta
    if sizes is None:
        return None
    n_heads = weights.n_delta_heads
    heads = (n_heads * sizes.n_key_heads // sizes.n_value_heads, n_heads)
    return delta_states(
        config.n_layers - config.n_kv_layers, sizes.n_slots, heads,
        (sizes.key_dim, sizes.value_dim), sizes.conv_len - 1, n_threads,
    )  # fmt: skip
