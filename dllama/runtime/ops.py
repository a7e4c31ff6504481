"""The operations that a family's blocks are written in, on one rank's scratch buffers."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from dataclasses import replace

import numpy as np

from dllama.collective import Addend, RowShares
from dllama.config import ModelConfig, QueryGrowth
from dllama.runtime.delta_nets import DeltaNets
from dllama.runtime.experts import Experts
from dllama.runtime.joint_norms import JointNorms
from dllama.runtime.latent import LatentAttention
from dllama.runtime.layer import NONE, After, Layer
from dllama.runtime.linear import Linear, needs_of
from dllama.runtime.rows import PageTable, Rows
from dllama.runtime.state import RunState
from dllama.runtime.weights import Weights
from kernels.activations import add_bias, clear, gather_rows, swiglu
from kernels.attention.causal import attention
from kernels.attention.gate import apply_gates, part_gates
from kernels.attention.kv_pages import KvPages
from kernels.attention.rope import rope_table, rotate_and_store
from kernels.attention.tile import scoring
from kernels.experts.sums import add_parts
from kernels.matmul.multiply import matmul
from kernels.matmul.sums import FixedSums
from kernels.norms import add_norm
from kernels.prepare import pack_quants, prepare, unpack_quants
from kernels.soft_cap import soft_cap
from kernels.weights.layout import Activations, Needs

NO_GROWTH = QueryGrowth(0.0, 1)


class Ops:
    """Operations for the rows of one step at a time; `begin` comes first."""

    kept: np.ndarray | None  # the rows of the step that are left, where not all are
    _delta: np.ndarray | None  # what the residual stream has not taken in yet
    _needs: Needs  # of those who read `normed`

    def __init__(self, weights: Weights, state: RunState, team: np.ndarray) -> None:
        self._weights, self._state, self._team = weights, state, team
        self._config: ModelConfig = weights.config
        self._epsilon = weights.config.norm_epsilon
        self.qkv, self.gate_up = state.qkv, state.gate_up  # (T, width)
        self._experts = None if state.experts is None else Experts(weights, state.experts, team)

    def begin(self, rows: Rows) -> None:
        """Begins a step of these rows, whose embeddings are in the residual stream."""
        state, self.kept = self._state, None
        self._place(rows, 0)
        turns = self._weights.rotations
        for table, magnitude in enumerate(turns.magnitudes):
            rope_table(
                rows.positions, turns.inv_freq[table], magnitude, state.cosines[table],
                state.sines[table],
            )  # fmt: skip

    def groups(self, parts: Sequence[tuple[int, Rows]]) -> list[Ops]:
        """Returns the operations of each group of the step's rows, given with its first one. Groups
        are computed half layer by half layer, in their order: they share all buffers but those of
        their own rows."""
        found = []
        for first, rows in parts:
            group = copy(self)
            group._place(rows, first)
            found.append(group)
        return found

    def keep_wanted(self) -> None:
        """Goes on with the wanted rows alone: they move to the front."""
        rows, kept = self.rows, self.rows.wanted.astype(np.int32)
        gather_rows(self.x, kept, self.x)  # rows rise: none is overwritten before it is read
        delta = self._delta
        if delta is not None:
            gather_rows(delta, kept, delta)
        logits_at = np.searchsorted(kept, rows.logits_at).astype(np.int32)
        self._place(replace(rows, n=len(kept), logits_at=logits_at), 0)
        self.kept = kept
        self._delta = None if delta is None else self.total

    def states_at(self, rows: np.ndarray) -> np.ndarray:
        """Returns the last states of wanted rows of the step, (n, dim)."""
        states: np.ndarray = self._state.x[
            rows if self.kept is None else np.searchsorted(self.kept, rows)
        ]
        return states

    @property
    def _own(self) -> tuple[int, int]:
        """The rows that this rank norms: (first, end)."""
        return self.shares.own.start, self.shares.own.stop

    def divide(self, shares: RowShares) -> None:
        """Lets `add_norm` compute only this rank's share of the rows."""
        self.shares = shares
        self._sends_quants = self._weights.units.normed_quants

    @property
    def sent_rows(self) -> np.ndarray:
        """The rows of `normed`, (T, n) float32, as ranks exchange them."""
        return self._wire if self._sends_quants else self.normed.rows[: self.rows.n]

    def pack_normed_rows(self) -> None:
        """Fills in this rank's share of `sent_rows`."""
        if self._sends_quants:
            pack_quants(self._team, self.normed, self.rows.n, self._own, self._wire)

    def take_normed_rows(self) -> None:
        """Completes `normed` with the shares of other ranks, which `sent_rows` holds by now."""
        begin, end = self._own
        for part in ((0, begin), (end, self.rows.n)):
            if part[0] == part[1]:
                continue
            if self._sends_quants:
                unpack_quants(self._team, self._wire, self.normed, self.rows.n, part)
            else:
                prepare(self._team, self.normed, self.rows.n, self._needs, part)

    def _place(self, rows: Rows, first: int) -> None:
        state, own = self._state, slice(first, first + rows.n)
        self.rows = rows
        self.shares, self._sends_quants = RowShares.whole(rows.n), False
        self.normed = state.normed.part(first) if first else state.normed  # (T, dim): of products
        self._wire = state.wire[own]
        self.x = state.x[own]  # (T, dim): the residual stream
        self._own_rows = own  # of the buffers
        self.total = state.partial[own]  # (T, width): the sum over all ranks
        self.addend = self._whole_addend()  # (T, width): this rank's part of it
        self._cosines, self._sines = state.cosines[:, own], state.sines[:, own]
        self._delta = None

    def _whole_addend(self) -> Addend:
        fixed = self._state.fixed
        return self.total if fixed is None else fixed.rows(self._own_rows)

    def add_norm(self, after: After, before: np.ndarray, *readers: Linear | None) -> None:
        """x += norm(total + bias), as `after` says, then `normed` = norm(x, before), as all
        `readers` read it.

        There is no `total` before the first half layer. `before` are norm weights (dim,), empty for
        no norm.
        """
        self._needs = needs_of(*readers)
        needs = Needs(quants=True) if self._sends_quants else self._needs
        add_norm(
            self._team, self.x, self._delta, after.norm, before, self._epsilon, self.normed,
            self.rows.n, needs, self._own, after.bias, scale=self._config.residual_scale,
            is_centered=self._config.has_layer_norm,
        )  # fmt: skip
        self._delta = self.total

    def take_in(self, after: After) -> None:
        """x += norm(total + bias), as `after` says."""
        self.add_norm(after, NONE)

    def begin_part(self, number: int) -> None:
        """Lets `addend` be one of the parts that `add_parts` adds up."""
        assert self._state.parts is not None, "only layers of one sum have parts"
        self.addend = self._state.parts.part(number, self._own_rows)

    def add_parts(self) -> None:
        """Adds up the parts, to `addend`."""
        state, own = self._state, self._own_rows
        assert state.parts is not None, "only layers of one sum have parts"
        self.addend = self._whole_addend()
        slots = state.parts.slots[own]
        add_parts(self._team, slots, self.rows.n, state.parts.sums, self.addend)

    @property
    def joint_norms(self) -> JointNorms:
        """The operations of norms over all heads together."""
        squares = self._state.squares
        assert squares is not None, "only families of joint norms measure heads"
        return JointNorms(self._weights, squares, self.qkv, self._team, self._own_rows)

    def matmul(self, w: Linear, a: Activations, out: Addend, n: int | None = None) -> None:
        """out[:T] = a @ w.T for all matrices of a Linear, side by side; of the first n rows."""
        for column, part in w.parts:
            n_rows = self.rows.n if n is None else n
            matmul(self._team, part, a, n_rows, out, column, w.unit)

    def add_nothing(self) -> None:
        """Makes this rank's part of the sum zero: it has no columns of the matrix."""
        if isinstance(self.addend, FixedSums):
            clear(self.addend.low)
            clear(self.addend.wide)
        else:
            clear(self.addend)

    def rotate_and_store(
        self, layer: Layer, bias: np.ndarray, q_norm: np.ndarray, k_norm: np.ndarray
    ) -> None:
        """Adds biases to `qkv`, norms and turns queries and keys, and stores keys and values."""
        state, rows, config = self._state, self.rows, self._config
        if config.has_output_gate:
            n_kv_heads = self._weights.n_kv_heads
            part_gates(
                self._team, self.qkv, rows.n, n_kv_heads * config.group_size, n_kv_heads,
                config.head_dim, state.gates,
            )  # fmt: skip
        table = self._weights.rotations.table_of[layer.index]
        kv, pages = self._pages_of(layer)
        rotate_and_store(
            self._team, self.qkv, rows.n, config.group_size, config.head_dim, bias, q_norm, k_norm,
            self._epsilon, self._cosines[table], self._sines[table], rows.positions,
            pages.row_pages, kv.keys[layer.place], kv.values[layer.place],
            is_centered=config.has_layer_norm,
        )  # fmt: skip

    def attend(self, layer: Layer, reader: Linear, sinks: np.ndarray = NONE) -> Activations:
        """Attention of every row over its sequence, as `reader` reads it: (T, columns). `sinks` are
        logits of the query heads that take weight and add no value; empty for none."""
        state, rows, config = self._state, self.rows, self._config
        kind, growth = config.attention_of(layer.index), config.query_growth or NO_GROWTH
        grows = growth.is_everywhere or not kind.is_rotated
        weighed = scoring(
            config.head_dim, scale=config.attention_scale, cap=config.attention_softcap,
            window=kind.window, sinks=sinks, is_chunked=kind.is_chunked,
            growth=self._weights.growth if grows else NONE, growth_length=growth.length,
            growth_first=growth.first,
        )  # fmt: skip
        mixed = state.mixed[reader.cols]
        kv, pages = self._pages_of(layer)
        attention(
            self._team, self.qkv, rows.starts, state.tiles, config.group_size, rows.positions,
            pages.pages, kv.keys[layer.place], kv.values[layer.place], config.head_dim,
            weighed, state.scratch, mixed.rows,
        )  # fmt: skip
        if config.has_output_gate:
            width = self._weights.n_kv_heads * config.group_size * config.head_dim
            apply_gates(self._team, state.gates, rows.n, width, mixed.rows)
        prepare(self._team, mixed, rows.n, reader.needs)
        return mixed

    @property
    def latent(self) -> LatentAttention:
        """The operations of latent attention."""
        state = self._state
        assert state.latent is not None, "only families of latent attention have these operations"
        return LatentAttention(
            self._weights, state.latent, state.kv, state.tiles, state.scratch, state.mixed,
            self._team, self.rows, self._cosines[0], self._sines[0],
        )  # fmt: skip

    def _pages_of(self, layer: Layer) -> tuple[KvPages, PageTable]:
        """Returns the pages of a layer's kind, and which of them the step's rows have."""
        if self._config.is_windowed(layer.index):
            return self._state.window_kv, self.rows.window_table
        return self._state.kv, self.rows.table

    @property
    def delta_nets(self) -> DeltaNets:
        """The operations of gated delta nets."""
        return DeltaNets(self._weights, self._state, self._team, self.rows)

    def swiglu(self, reader: Linear) -> Activations:
        """silu(gate) * up of `gate_up`'s two halves, or with the model's own function of the gate,
        as `reader` reads it: (T, columns)."""
        hidden = self._state.hidden[reader.cols]
        gate = self._config.gate
        swiglu(self._team, self.gate_up, hidden, self.rows.n, reader.needs, gate)
        return hidden

    def route(self, router: Linear, bias: np.ndarray, choice_bias: np.ndarray) -> None:
        """Chooses the experts of every row of `normed`; the biases are those of the router's logits
        and of the choice alone, empty for none."""
        self._mixture.route(router, bias, choice_bias, self.normed, self.rows.n)

    def begin_experts(self, gate_up: Linear) -> None:
        """Computes the first product of the chosen experts of all rows."""
        self._mixture.begin(gate_up, self.normed, self.rows.n)

    def end_experts(self, w2: Linear, biases: np.ndarray) -> None:
        """Computes the rest of them, weighted. `biases` are those of the first product."""
        self._mixture.end(w2, biases, self.rows.n)

    def run_shared_expert(self, gate_up: Linear, w2: Linear) -> None:
        """Computes the expert that all rows take, weighted."""
        self._mixture.run_shared(gate_up, w2, self.normed, self.rows.n)

    def add_experts(self, biases: np.ndarray) -> None:
        """Adds up the experts of each row and their weighted `biases`, to `addend`."""
        self._mixture.add(biases, self.addend, self.rows.n)

    @property
    def _mixture(self) -> Experts:
        assert self._experts is not None, "only families of mixtures have routers"
        return self._experts

    def head(self) -> None:
        """Logits of the rows `logits_at` over this rank's part of the vocabulary."""
        state, weights, rows = self._state, self._weights, self.rows
        n = len(rows.logits_at)
        if n and weights.wcls is not None:
            gather_rows(self.x, rows.logits_at, state.last)
            add_norm(
                self._team, state.last[:n], None, NONE, weights.head_norm, self._epsilon,
                self.normed, n, weights.wcls.needs, is_centered=self._config.has_layer_norm,
            )  # fmt: skip
            self.matmul(weights.wcls, self.normed, state.logits, n)
            if weights.head_bias.size:
                add_bias(state.logits, n, weights.head_bias)
            if self._config.final_softcap:
                soft_cap(self._team, state.logits, n, self._config.final_softcap)
