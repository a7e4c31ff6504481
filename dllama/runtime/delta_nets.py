"""The operations of gated delta nets on the rows of a step, on one rank's buffers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dllama.runtime.layer import Layer
from dllama.runtime.linear import Linear
from dllama.runtime.rows import Rows
from dllama.runtime.state import RunState
from dllama.runtime.weights import Weights
from kernels.prepare import prepare
from kernels.recurrent.convolution import convolution
from kernels.recurrent.delta import DeltaWeights, delta_net
from kernels.recurrent.states import DeltaStates
from kernels.weights.layout import Activations


@dataclass(frozen=True, slots=True)
class DeltaNets:
    """In the order in which they are made; `convolve` comes first."""

    weights: Weights
    state: RunState
    team: np.ndarray
    rows: Rows

    @property
    def inputs(self) -> np.ndarray:
        """Queries, keys, values and gates of all heads, (T, width)."""
        return self.state.delta_rows

    def convolve(self, layer: Layer) -> None:
        """The convolution of queries, keys and values, each channel by itself."""
        rows = self.rows
        convolution(
            self.team, self.inputs, rows.starts, rows.positions, rows.slots, layer.table("conv"),
            self._states, layer.place,
        )  # fmt: skip

    def run(self, layer: Layer, reader: Linear) -> Activations:
        """The gated results of every row, as `reader` reads them: (T, columns). States are taken
        through the rows."""
        rows, config = self.rows, self.weights.config
        assert config.delta is not None, "only families with gated delta nets compute them"
        mixed = self.state.mixed_deltas[reader.cols]
        weights = DeltaWeights(*map(layer.vector, ("delta_decay", "delta_shift", "delta_norm")))
        delta_net(
            self.team, self.inputs, rows.starts, rows.positions, rows.slots, weights, self._states,
            layer.place, config.delta.bundle, config.delta.pairs_gates, config.norm_epsilon,
            mixed.rows,
        )  # fmt: skip
        prepare(self.team, mixed, rows.n, reader.needs)
        return mixed

    @property
    def _states(self) -> DeltaStates:
        assert self.state.states is not None, "only families with gated delta nets have states"
        return self.state.states
