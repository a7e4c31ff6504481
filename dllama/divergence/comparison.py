"""Statistics of two models' probabilities on one text, by the definitions of llama-perplexity."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from dllama.step import LogitRow

KLD_PERCENTILES = (99.9, 99.0, 95.0, 90.0, 50.0, 10.0, 5.0, 1.0, 0.1)
CHANGE_PERCENTILES = (99.9, 99.0, 95.0, 90.0, 75.0, 50.0, 25.0, 10.0, 5.0, 1.0, 0.1)
LEAST_LOG_PROBABILITY = -16.0  # of the base model: the file tells less likely tokens not apart


@dataclass(frozen=True, slots=True)
class Measured:
    """A mean, or what follows from one, and its standard error."""

    value: float
    error: float


@dataclass(frozen=True, slots=True)
class Comparison:
    """What is known of a model beside its base. `divergences` are percentiles of the divergence of
    a token, with the least (0) and the largest (100); `changes` those of the change of the
    probability of the token that stood in the text."""

    n_windows: int
    n_tokens: int
    perplexity: Measured
    base_perplexity: Measured
    correlation: float  # of both models' losses
    log_ratio: Measured
    ratio: Measured
    difference: Measured
    divergence: Measured
    divergences: dict[float, float]
    change: Measured
    changes: dict[float, float]
    rms_change: Measured
    same_top: Measured

    def to_json(self) -> dict[str, object]:
        return asdict(self)


class TokenPair:
    """What is kept of a token: both models' losses, the divergence, and whether the most likely
    token is the same."""

    __slots__ = ("base_loss", "divergence", "is_same_top", "loss")

    def __init__(self, row: LogitRow, base: np.ndarray, token: int) -> None:
        """`base` are the base model's log-probabilities, float32 (n_tokens,)."""
        own = row.logits - np.float32(row.log_sum_exp)
        known = base > LEAST_LOG_PROBABILITY
        likely = base[known]
        self.divergence = float(np.sum(np.exp(likely) * (likely - own[known]), dtype=np.float64))
        self.loss, self.base_loss = -float(own[token]), -float(base[token])
        self.is_same_top = int(own.argmax()) == int(base.argmax())


def comparison_of(pairs: Sequence[TokenPair], n_windows: int) -> Comparison:
    """Returns the statistics of all tokens so far."""
    losses = np.array([pair.loss for pair in pairs])
    base_losses = np.array([pair.base_loss for pair in pairs])
    divergences = np.array([pair.divergence for pair in pairs])
    changes = np.exp(-losses) - np.exp(-base_losses)
    own, base = _mean(losses), _mean(base_losses)
    covariance = _covariance(losses, base_losses)
    log_ratio = Measured(
        own.value - base.value, math.sqrt(max(own.error**2 + base.error**2 - 2 * covariance, 0.0))
    )
    perplexity, base_perplexity = _exponential(own), _exponential(base)
    joint = 2 * perplexity.value * base_perplexity.value * covariance
    difference = perplexity.error**2 + base_perplexity.error**2 - joint
    squares, same = _mean(changes**2), float(np.mean([pair.is_same_top for pair in pairs]))
    rms, n = math.sqrt(squares.value), len(pairs)
    return Comparison(
        n_windows, n, perplexity, base_perplexity,
        correlation=covariance / (own.error * base.error) if own.error * base.error else 1.0,
        log_ratio=log_ratio, ratio=_exponential(log_ratio),
        difference=Measured(
            perplexity.value - base_perplexity.value, math.sqrt(max(difference, 0.0))
        ),
        divergence=_mean(divergences), divergences=_percentiles(divergences, KLD_PERCENTILES),
        change=_mean(changes), changes=_percentiles(changes, CHANGE_PERCENTILES),
        rms_change=Measured(rms, 0.5 / rms * squares.error if rms else 0.0),
        same_top=Measured(same, math.sqrt(same * (1 - same) / max(n - 1, 1))),
    )  # fmt: skip


def _mean(values: np.ndarray) -> Measured:
    n = len(values)
    error = math.sqrt(values.var() / (n - 1)) if n > 1 else 0.0
    return Measured(float(values.mean()), error)


def _covariance(a: np.ndarray, b: np.ndarray) -> float:
    """Returns the covariance of two means."""
    n = len(a)
    return float(((a * b).mean() - a.mean() * b.mean()) / (n - 1)) if n > 1 else 0.0


def _exponential(of: Measured) -> Measured:
    value = math.exp(of.value)
    return Measured(value, value * of.error)


def _percentiles(values: np.ndarray, wanted: Sequence[float]) -> dict[float, float]:
    ranks = (100.0, *wanted, 0.0)
    return dict(zip(ranks, map(float, np.percentile(values, ranks)), strict=True))
