"""The scratch buffers of a mixture of experts, and what is computed in them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dllama.collective import Addend
from dllama.config import Gating
from dllama.runtime.inputs import inputs
from dllama.runtime.layer import NO_BIASES
from dllama.runtime.linear import Linear
from dllama.runtime.weights import Weights
from kernels.arrays import aligned
from kernels.experts.routing import Router, Routes, route, routes
from kernels.experts.slots import NO_WEIGHTS, activate, gather
from kernels.experts.sums import add_slots
from kernels.matmul.multiply import matmul
from kernels.matmul.sums import FixedSums
from kernels.prepare import activations
from kernels.weights.layout import GROUP, Activations


@dataclass(frozen=True, slots=True)
class ExpertState:
    """Buffers for up to max_tokens (T) rows of a step, whose experts take k slots each, S = k T in
    all. The shared expert's sums follow those of the slots, T more."""

    routes: Routes
    logits: np.ndarray  # (T, width): of the experts, and of the shared one
    gathered: Activations  # (S, dim): the input of each slot
    gate_up: np.ndarray  # (S, width)
    hidden: dict[int, Activations]  # (S, columns), by the columns of its reader
    shared_gate_up: np.ndarray  # (T, width)
    shared_hidden: dict[int, Activations]  # (T, columns)
    sums: FixedSums  # (S + T, dim up to whole groups)


def allocate_experts(weights: Weights, max_tokens: int) -> ExpertState | None:
    """Allocates the buffers of one rank; None for a model without experts."""
    config = weights.config
    if not config.n_experts:
        return None
    n_slots = max_tokens * config.n_active_experts
    n_sums = n_slots + (max_tokens if config.shared_hidden_dim else 0)

    return ExpertState(
        routes=routes(
            max_tokens,
            config.n_experts,
            config.n_active_experts,
            has_shared=bool(n_sums - n_slots),
            n_groups=config.n_expert_groups,
        ),
        logits=aligned((max_tokens, weights.widest("routers")), np.float32),
        gathered=activations(n_slots, config.dim),
        gate_up=aligned((n_slots, weights.widest("expert_gate_up")), np.float32),
        hidden=inputs(weights.linears("expert_w2"), n_slots),
        shared_gate_up=aligned((max_tokens, weights.widest("shared_gate_up")), np.float32),
        shared_hidden=inputs(weights.linears("shared_w2"), max_tokens),
        sums=FixedSums.zeros(n_sums, -(-config.dim // GROUP) * GROUP),
    )


class Experts:
    """The operations of a mixture, on one rank's buffers, in the order in which they are made."""

    def __init__(self, weights: Weights, state: ExpertState, team: np.ndarray) -> None:
        self._config, self._state, self._team = weights.config, state, team
        config = weights.config
        self._router = Router(
            is_sigmoid=config.gating is Gating.SIGMOID, is_normalized=config.has_expert_norm,
            scale=config.expert_scale, n_active_groups=config.n_active_groups,
            is_sparse_mixer=config.gating is Gating.SPARSE_MIXER,
        )  # fmt: skip

    def route(
        self, router: Linear, bias: np.ndarray, choice_bias: np.ndarray, normed: Activations,
        n_rows: int,
    ) -> None:  # fmt: skip
        """Chooses the experts of n_rows rows of `normed`, as `router` needs them; see
        kernels.experts.routing.route for the biases, which are empty where there are none."""
        state = self._state
        for column, part in router.parts:
            matmul(self._team, part, normed, n_rows, state.logits, column)
        route(
            self._team, state.logits, n_rows, state.routes, self._router, bias, choice_bias,
            has_shared_gate=self._config.n_shared_gates > 0,
        )  # fmt: skip

    def begin(self, gate_up: Linear, normed: Activations, n_rows: int) -> None:
        """Computes the first product of the chosen experts, each for its own rows."""
        state, found = self._state, self._state.routes
        before = found.weights if self._config.weighs_inputs else NO_WEIGHTS
        gather(
            self._team, normed.rows, found.rows, found.table, state.gathered, gate_up.needs, before
        )
        n_slots = n_rows * self._config.n_active_experts
        self._multiply(gate_up, state.gathered, n_slots, state.gate_up, found.table)

    def end(self, w2: Linear, biases: np.ndarray, n_rows: int) -> None:
        """Computes the rest of them: the sums of their slots."""
        state, found = self._state, self._state.routes
        hidden = state.hidden[w2.cols]
        after = NO_WEIGHTS if self._config.weighs_inputs else found.weights
        self._activate(w2, state.gate_up, hidden, after, found.table, biases)
        n_slots = n_rows * self._config.n_active_experts
        self._multiply(w2, hidden, n_slots, state.sums, found.table)

    def run_shared(self, gate_up: Linear, w2: Linear, normed: Activations, n_rows: int) -> None:
        """Computes the expert that all rows take: the sums that follow those of the slots."""
        state, found = self._state, self._state.routes
        self._multiply(gate_up, normed, n_rows, state.shared_gate_up, found.shared)
        hidden = state.shared_hidden[w2.cols]
        self._activate(
            w2, state.shared_gate_up, hidden, found.shared_weights, found.shared, NO_BIASES
        )
        own = state.sums.rows(slice(found.first_shared, found.first_shared + n_rows))
        self._multiply(w2, hidden, n_rows, own, found.shared)

    def add(self, biases: np.ndarray, out: Addend, n_rows: int) -> None:
        """Adds up the sums of each row's slots and the weighted biases of its experts, to out (T,
        width)."""
        add_slots(self._team, self._state.routes, n_rows, self._state.sums, out, biases)

    def _multiply(
        self, w: Linear, a: Activations, n_rows: int, out: Addend, table: np.ndarray
    ) -> None:
        for column, part in w.parts:
            matmul(self._team, part, a, n_rows, out, column, w.unit, table)

    def _activate(
        self, w2: Linear, values: np.ndarray, hidden: Activations, weights: np.ndarray,
        table: np.ndarray, biases: np.ndarray,
    ) -> None:  # fmt: skip
        gate = self._config.gate
        activate(self._team, values, weights, table, hidden, w2.needs, gate, biases)
