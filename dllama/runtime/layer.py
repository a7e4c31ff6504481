"""One layer's share of the weights, as the blocks of a family read them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from dllama.runtime.linear import Linear

NONE = np.zeros(0, np.float32)
"""A norm or bias that the model does not have."""

NO_BIASES = np.zeros((0, 0), np.float32)
"""Those of experts that have none."""


class After(NamedTuple):
    """What is done with a half layer's sum over all ranks before the residual stream takes it in: a
    bias is added to it, then it is normed. Each is empty where the model has none."""

    bias: np.ndarray = NONE  # (dim,)
    norm: np.ndarray = NONE  # (dim,): weights


@dataclass(frozen=True, slots=True)
class Layer:
    """A rank's share of layer `index`. `previous` is the layer before, None for the first; `place`
    is where its keys and values, or its states, are among those of all layers.

    Names are those of the family's table; tensors that are packed together go by their joint name.
    """

    index: int
    place: int
    vectors: Mapping[str, np.ndarray]  # float32, (n,) or, of each expert, (n_experts, n)
    tables: Mapping[str, np.ndarray]  # float32 (cols, rows)
    matrices: Mapping[str, Linear]
    previous: Layer | None = None

    def vector(self, name: str) -> np.ndarray:
        """A norm or bias, (n,) float32; empty where the model has none."""
        return self.vectors.get(name, NONE)

    def table(self, name: str) -> np.ndarray:
        """A table that this rank has a part of, (cols, rows) float32."""
        return self.tables[name]

    def of_experts(self, name: str) -> np.ndarray:
        """A bias of each expert, (n_experts, n up to whole groups) float32; none where the model or
        this rank has none."""
        return self.vectors.get(name, NO_BIASES)

    @property
    def after_attention(self) -> After:
        return After(self.vector("bo"), self.vector("post_norm1"))

    @property
    def after_feed_forward(self) -> After:
        return After(norm=self.vector("post_norm2"))

    @property
    def after_previous(self) -> After:
        """What is done with the sum that the layer begins with; nothing for the first layer."""
        return After() if self.previous is None else self.previous.after_feed_forward

    def matrix(self, name: str) -> Linear | None:
        """A matrix, or those of all experts; None where this rank has no part of them."""
        return self.matrices.get(name)

    def read_bytes(self, n_active_experts: int) -> int:
        """Bytes of packed matrices that one token reads."""
        return sum(
            linear.n_bytes
            if linear.is_by_head
            else linear.n_bytes * min(linear.n_matrices, n_active_experts or 1) // linear.n_matrices
            for linear in self.matrices.values()
        )
