"""Muon: momentum whose matrices are brought near to orthogonal ones before they are applied, so
that rare directions move as far as common ones (Jordan et al. 2024, "Muon: an optimizer for hidden
layers in neural networks"; the scale that lets AdamW's learning rate be used is from Liu et al.
2025, "Muon is scalable for LLM training", arXiv 2502.16982)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch

COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # of the quintic iteration
N_ITERATIONS = 5
RMS = 0.2  # of an update's entries, as AdamW's are


class Muon(torch.optim.Optimizer):
    """For matrices only."""

    def __init__(
        self,
        params: Iterable[torch.Tensor],
        lr: float,
        weight_decay: float,
        momentum: float = 0.95,
    ) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> Any:
        assert closure is None, "the gradients are there already"
        for group in self.param_groups:
            for matrix in group["params"]:
                gradient = matrix.grad
                momentum = self.state[matrix].setdefault("momentum", torch.zeros_like(matrix))
                momentum.lerp_(gradient, 1 - group["momentum"])
                ahead = gradient.lerp(momentum, group["momentum"])  # Nesterov's
                matrix.mul_(1 - group["lr"] * group["weight_decay"])
                step = group["lr"] * RMS * max(matrix.shape) ** 0.5
                matrix.add_(orthogonal(ahead), alpha=-step)


def orthogonal(x: torch.Tensor) -> torch.Tensor:
    """The matrix (m, n) with all its singular values brought near to 1, in bfloat16."""
    a, b, c = COEFFICIENTS
    is_tall = x.shape[0] > x.shape[1]
    y = (x.T if is_tall else x).bfloat16()
    y = y / (y.norm() + 1e-7)
    for _ in range(N_ITERATIONS):
        square = y @ y.T
        y = a * y + (b * square + c * square @ square) @ y
    return (y.T if is_tall else y).to(x.dtype)
