"""Logits processors, which change single logits before tokens are compared: the protocol, and
logit_bias. Knows no probabilities; penalties.py and dry.py look at earlier tokens.

Logits are computed in float64 and rounded once, so that they are the same from any list.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np

if TYPE_CHECKING:
    from dllama.requests import SamplingParams

_MAX_LOGIT = float(np.finfo(np.float32).max)


class LogitsProcessor(Protocol):
    """Changes the logits of some tokens, in whole rows and in lists of candidates alike."""

    def follow(self, tokens: list[int]) -> None:
        """Takes in the new end of a sequence, which begins with all tokens of the last call."""
        ...

    def touched(self) -> Collection[int]:
        """The tokens whose logits may change."""
        ...

    def apply(self, ids: list[int], x: np.ndarray) -> np.ndarray:
        """The new logits (k,) float64 of the tokens `ids`; may write to `x`."""
        ...

    def max_lowered(self) -> int | None:
        """The most tokens whose logits are lowered at once; None if unknown, or if a logit may
        rise."""
        ...


class LogitBias:
    """Adds a number to the logit of each token of `bias`; minus infinity forbids it."""

    def __init__(self, bias: dict[int, float]) -> None:
        self._bias = bias

    def follow(self, tokens: list[int]) -> None:
        """Does nothing: the bias depends on no earlier token."""

    def touched(self) -> Collection[int]:
        return self._bias.keys()

    def apply(self, ids: list[int], x: np.ndarray) -> np.ndarray:
        x += np.array([self._bias.get(token, 0.0) for token in ids])
        return x

    def max_lowered(self) -> int | None:
        return None if any(bias > 0 for bias in self._bias.values()) else len(self._bias)


def bias_of(params: SamplingParams) -> list[LogitsProcessor]:
    """The processor of logit_bias, if there is one."""
    return [LogitBias(params.logit_bias)] if params.logit_bias else []


def processed(
    ids: np.ndarray, logits: np.ndarray, processors: Sequence[LogitsProcessor]
) -> np.ndarray:
    """The logits (k,) float32 of the tokens `ids` (k,) after all processors: those of forbidden
    tokens are minus infinity, all others finite, however far penalties have moved them."""
    listed = ids.tolist()
    x = logits.astype(np.float64)
    for processor in processors:
        if processor.touched():
            x = processor.apply(listed, x)
    np.clip(x, -_MAX_LOGIT, _MAX_LOGIT, out=x, where=x > -np.inf)
    return x.astype(np.float32)


def processed_row(logits: np.ndarray, processors: Sequence[LogitsProcessor]) -> np.ndarray:
    """A copy of a whole row (vocab_size,) float32 after all processors; the row itself if nothing
    changes."""
    touched = {token for processor in processors for token in processor.touched()}
    if not touched:
        return logits
    ids = np.fromiter(touched, np.int64, len(touched))
    changed = logits.copy()
    changed[ids] = processed(ids, logits[ids], processors)
    return changed
