"""The operations of norms over all heads together, on one rank's buffers: each rank measures its
own heads, and norms them by what all of them measured."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dllama.runtime.partial_sums import Squares
from dllama.runtime.weights import Weights
from kernels.activations import clear
from kernels.joint_norm import head_squares, norm_heads
from kernels.matmul.sums import FixedSums


@dataclass(frozen=True, slots=True)
class JointNorms:
    """Of the rows `own` of the buffers; qkv (T, width) holds the queries and keys."""

    weights: Weights
    squares: Squares
    qkv: np.ndarray
    team: np.ndarray
    own: slice

    @property
    def measured(self) -> FixedSums:
        """This rank's part of each row's mean squares, (T, GROUP)."""
        return self.squares.own.rows(self.own)

    @property
    def total(self) -> np.ndarray:
        """Those of all ranks, (T, GROUP) float32."""
        return self.squares.total[self.own]

    def measure(self) -> None:
        """Makes `measured`."""
        config, n_kv_heads = self.weights.config, self.weights.n_kv_heads
        head_squares(
            self.team, self.qkv, self._n_rows, (n_kv_heads * config.group_size, n_kv_heads),
            config.head_dim, (config.q_dim, config.kv_dim), self.measured,
        )  # fmt: skip

    def measure_nothing(self) -> None:
        """Makes `measured` zero, of a rank without heads."""
        clear(self.measured.low)
        clear(self.measured.wide)

    def norm(self, q_norm: np.ndarray, k_norm: np.ndarray) -> None:
        """Norms queries and keys of `qkv` by `total`."""
        epsilon = self.weights.config.norm_epsilon
        norm_heads(self.team, self.qkv, self._n_rows, self.total, q_norm, k_norm, epsilon)

    @property
    def _n_rows(self) -> int:
        n_rows: int = self.own.stop - self.own.start
        return n_rows
