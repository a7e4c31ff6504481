"""The scratch buffers of latent attention, and what is computed in them: the rows that are kept of
tokens, the queries of each head against them, and the values of each head from what it mixes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dllama.config import Latent
from dllama.runtime.layer import NONE, Layer
from dllama.runtime.linear import Linear
from dllama.runtime.rows import Rows
from dllama.runtime.weights import Weights
from kernels.arrays import aligned
from kernels.attention.causal import Scratch, attention
from kernels.attention.kv_pages import KvPages, padded
from kernels.attention.latent import store_latents
from kernels.attention.tile import scoring
from kernels.latent_heads import (
    deal_heads,
    gather_heads,
    join_queries,
    spread_heads,
)
from kernels.matmul.multiply import matmul
from kernels.norms import add_norm
from kernels.prepare import activations, prepare
from kernels.weights.layout import Activations


@dataclass(frozen=True, slots=True)
class LatentState:
    """Buffers for up to max_tokens (T) rows of a step and H heads of a rank; W is the width of a
    row of pages, up to whole vectors."""

    queries: np.ndarray  # (T, width): of all heads, where they are not a part of `qkv`
    normed_queries: Activations  # (T, q_rank)
    nope: Activations  # (H T, nope_dim): head by head
    joined: np.ndarray  # (T, H W): queries against rows of pages, then what they mix of them
    latents: Activations  # (H T, kv_rank): head by head
    products: np.ndarray  # (H T, kv_rank or value_dim up to whole groups)
    table: np.ndarray  # (H + 1, 3) int32


def allocate_latent(weights: Weights, max_tokens: int) -> LatentState | None:
    """Allocates the buffers of one rank; None for a model without latent attention."""
    sizes, n_heads = weights.config.latent, weights.n_kv_heads
    if sizes is None:
        return None
    n, width = n_heads * max_tokens, n_heads * padded(sizes.width)
    return LatentState(
        queries=aligned((max_tokens, weights.widest("wq_b")), np.float32),
        normed_queries=activations(max_tokens, sizes.q_rank),
        nope=activations(n, sizes.nope_dim),
        joined=aligned((max_tokens, width), np.float32),
        latents=activations(n, sizes.kv_rank),
        products=aligned((n, max(weights.widest("wk_b"), weights.widest("wv_b"))), np.float32),
        table=np.zeros((n_heads + 1, 3), np.int32),
    )


@dataclass(frozen=True, slots=True)
class LatentAttention:
    """The operations of latent attention on the rows of a step, in the order in which they are
    made, on one rank's buffers."""

    weights: Weights
    state: LatentState
    kv: KvPages
    tiles: np.ndarray  # (T, 3) int32
    scratch: Scratch
    mixed: dict[int, Activations]  # the values of all heads, by the columns of their reader
    team: np.ndarray
    rows: Rows
    cosines: np.ndarray  # (T, rope_dim / 2)
    sines: np.ndarray

    @property
    def queries(self) -> np.ndarray:
        """The queries of all heads, (T, width), where they come from compressed ones."""
        return self.state.queries

    def store_rows(self, layer: Layer, qkv: np.ndarray, end: int) -> None:
        """Norms and rotates the rows that are kept, the columns before `end` of qkv, and stores
        them."""
        sizes, rows = self._sizes, self.rows
        store_latents(
            self.team, qkv, (end - sizes.width, end), rows.n, layer.vector("kv_a_norm"),
            self._epsilon, self.cosines, self.sines, rows.positions, rows.table.row_pages,
            self.kv.values[layer.place],
        )  # fmt: skip

    def normed_queries(self, layer: Layer, qkv: np.ndarray, reader: Linear) -> Activations:
        """Norms the compressed queries, with which qkv begins, as `reader` reads them."""
        normed, weights = self.state.normed_queries, layer.vector("q_a_norm")
        add_norm(
            self.team, qkv, None, NONE, weights, self._epsilon, normed, self.rows.n, reader.needs
        )
        return normed

    def absorb(self, queries: np.ndarray, wk_b: Linear) -> None:
        """Takes the queries (T, H head_dim or wider) to rows of pages, in `joined`."""
        state, sizes, n_rows = self.state, self._sizes, self.rows.n
        head_dim = sizes.nope_dim + sizes.rope_dim
        deal_heads(n_rows, self._n_heads, state.table)
        gather_heads(self.team, queries, head_dim, state.table, state.nope, wk_b.needs)
        self._multiply(wk_b, state.nope)
        join_queries(
            self.team, queries, head_dim, state.products, n_rows, self._n_heads, sizes.kv_rank,
            self.cosines, self.sines, state.joined,
        )  # fmt: skip

    def attend(self, layer: Layer) -> None:
        """Attention of the queries in `joined` over the rows of pages; what a head mixes takes the
        place of its query."""
        state, rows, config = self.state, self.rows, self.weights.config
        weighed = scoring(config.head_dim, scale=config.attention_scale)
        attention(
            self.team, state.joined, rows.starts, self.tiles, self._n_heads, rows.positions,
            rows.table.pages, self.kv.keys[layer.place], self.kv.values[layer.place],
            padded(self._sizes.width), weighed, self.scratch, state.joined,
        )  # fmt: skip

    def values(self, wv_b: Linear, reader: Linear) -> Activations:
        """Returns the values of all heads from what they have mixed, as `reader` reads them: (T,
        columns)."""
        state, sizes, mixed = self.state, self._sizes, self.mixed[reader.cols]
        width, n_rows = padded(sizes.width), self.rows.n
        gather_heads(self.team, state.joined, width, state.table, state.latents, wv_b.needs)
        self._multiply(wv_b, state.latents)
        spread_heads(self.team, state.products, n_rows, self._n_heads, sizes.value_dim, mixed.rows)
        prepare(self.team, mixed, n_rows, reader.needs)
        return mixed

    def _multiply(self, w: Linear, a: Activations) -> None:
        n_rows, out, table = self.rows.n * self._n_heads, self.state.products, self.state.table
        for column, part in w.parts:
            matmul(self.team, part, a, n_rows, out, column, w.unit, table)

    @property
    def _n_heads(self) -> int:
        return len(self.state.table) - 1

    @property
    def _sizes(self) -> Latent:
        assert self.weights.config.latent is not None, "only latent attention has these operations"
        return self.weights.config.latent

    @property
    def _epsilon(self) -> float:
        return self.weights.config.norm_epsilon
