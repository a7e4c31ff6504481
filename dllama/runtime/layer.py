"""One layer's share of the weights, as the blocks of a family read them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from dllama.runtime.linear import Linear

NONE = np.zeros(0, np.float32)
"""A norm or bias that the model does not have."""


@dataclass(frozen=True, slots=True)
class Layer:
    """A rank's share of layer `index`. `previous` is the layer before, None for the first; `place`
    is where its keys and values, or its states, are among those of all layers.

    Names are those of the family's table; tensors that are packed together go by their joint name.
    """

    index: int
    place: int
    vectors: Mapping[str, np.ndarray]  # (n,) float32 each; tables are (cols, rows)
    matrices: Mapping[str, Linear]
    previous: Layer | None = None

    def vector(self, name: str) -> np.ndarray:
        """A norm or bias, (n,) float32; empty where the model has none."""
        return self.vectors.get(name, NONE)

    def before(self, name: str) -> np.ndarray:
        """A vector of the layer before; empty for the first layer."""
        return NONE if self.previous is None else self.previous.vector(name)

    def matrix(self, name: str) -> Linear | None:
        """A matrix, or those of all experts; None where this rank has no part of them."""
        return self.matrices.get(name)

    def read_bytes(self, n_active_experts: int) -> int:
        """Bytes of packed matrices that one token reads."""
        return sum(
            linear.n_bytes * min(linear.n_experts, n_active_experts or 1) // linear.n_experts
            for linear in self.matrices.values()
        )
