"""The scratch buffers of latent attention, and what is computed in them: the queries of each head
against the rows that are kept of tokens, and the values of each head from what it mixes of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dllama.runtime.inputs import Inputs
from dllama.runtime.linear import Linear
from dllama.runtime.weights import Weights
from kernels.arrays import aligned
from kernels.attention.kv_pages import padded
from kernels.attention.latent_heads import (
    deal_heads,
    gather_heads,
    join_queries,
    spread_heads,
)
from kernels.matmul.multiply import matmul
from kernels.prepare import activations
from kernels.weights.layout import Activations


@dataclass(frozen=True, slots=True)
class LatentState:
    """Buffers for up to max_tokens (T) rows of a step and H heads of a rank; W is the width of a
    row of pages, up to whole vectors."""

    queries: np.ndarray  # (T, width): of all heads, where they are not a part of `qkv`
    normed_queries: Activations  # (T, q_rank)
    nope: Activations  # (H T, nope_dim): head by head
    absorbed: np.ndarray  # (H T, kv_rank up to whole groups)
    joined: np.ndarray  # (T, H W): queries against rows of pages
    mixed: np.ndarray  # (T, H W)
    latents: Activations  # (H T, kv_rank): head by head
    values: np.ndarray  # (H T, value_dim up to whole groups)
    table: np.ndarray  # (H + 1, 3) int32


def allocate_latent(weights: Weights, max_tokens: int) -> LatentState | None:
    """Allocates the buffers of one rank; None for a model without latent attention."""
    sizes = weights.config.latent
    if sizes is None:
        return None
    n_heads = max((w.n_experts for w in weights.linears("wk_b")), default=0)
    n, width = n_heads * max_tokens, n_heads * padded(sizes.width)
    return LatentState(
        queries=aligned((max_tokens, weights.widest("wq_b")), np.float32),
        normed_queries=activations(max_tokens, sizes.q_rank),
        nope=activations(n, sizes.nope_dim),
        absorbed=aligned((n, weights.widest("wk_b")), np.float32),
        joined=aligned((max_tokens, width), np.float32),
        mixed=aligned((max_tokens, width), np.float32),
        latents=activations(n, sizes.kv_rank),
        values=aligned((n, weights.widest("wv_b")), np.float32),
        table=np.zeros((n_heads + 1, 3), np.int32),
    )


class LatentAttention:
    """The operations of latent attention on one rank's buffers, in the order in which they are
    made."""

    def __init__(self, weights: Weights, state: LatentState, team: np.ndarray) -> None:
        assert weights.config.latent is not None, "only latent attention has these operations"
        self._sizes, self.state, self._team = weights.config.latent, state, team
        self._n_heads = len(state.table) - 1

    def absorb(
        self, q: np.ndarray, wk_b: Linear, n_rows: int, cosines: np.ndarray, sines: np.ndarray
    ) -> np.ndarray:
        """Returns the queries against rows of pages, (T, H W), of q (T, H head_dim)."""
        state, sizes = self.state, self._sizes
        head_dim = sizes.nope_dim + sizes.rope_dim
        deal_heads(n_rows, self._n_heads, state.table)
        gather_heads(self._team, q, head_dim, state.table, state.nope, wk_b.needs)
        self._multiply(wk_b, state.nope, n_rows, state.absorbed)
        join_queries(
            self._team, q, head_dim, state.absorbed, n_rows, self._n_heads, sizes.kv_rank, cosines,
            sines, state.joined,
        )  # fmt: skip
        return state.joined

    def expand(self, wv_b: Linear, n_rows: int, out: Inputs) -> None:
        """Writes the values of all heads from what they have mixed, to out (T, H value_dim)."""
        state, width = self.state, padded(self._sizes.width)
        gather_heads(self._team, state.mixed, width, state.table, state.latents, wv_b.needs)
        self._multiply(wv_b, state.latents, n_rows, state.values)
        spread_heads(
            self._team, state.values, n_rows, self._n_heads, self._sizes.value_dim, out.own
        )

    def _multiply(self, w: Linear, a: Activations, n_rows: int, out: np.ndarray) -> None:
        for column, part in w.parts:
            matmul(self._team, part, a, n_rows * self._n_heads, out, column, w.units,
                   self.state.table)  # fmt: skip
