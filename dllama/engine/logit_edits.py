"""What is done to single logits before tokens are compared: the seam, and logit_bias. Knows no
probabilities; penalties.py and dry.py hold the edits that look at earlier tokens.

Edits are computed in float64 and rounded once, so that a logit comes out the same from any list.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Protocol

import numpy as np

from dllama.requests import SamplingParams


class Edit(Protocol):
    """Changes the logits of some tokens, whichever list they stand in."""

    def follow(self, tokens: list[int]) -> None:
        """Catches up with a sequence, which begins with all that was followed before."""
        ...

    def touched(self) -> Collection[int]:
        """The tokens whose logits may change."""
        ...

    def apply(self, ids: list[int], x: np.ndarray) -> np.ndarray:
        """The logits (k,) float64 of the tokens `ids` afterwards; `x` may be changed."""
        ...

    def max_lowered(self) -> int | None:
        """The most tokens whose logits are ever lowered; None where that is unknown, or where a
        logit may rise."""
        ...


class LogitBias:
    """Adds a number to the logit of each token of `bias`; minus infinity forbids it."""

    def __init__(self, bias: dict[int, float]) -> None:
        self._bias = bias

    def follow(self, tokens: list[int]) -> None:
        """The bias looks at no earlier token."""

    def touched(self) -> Collection[int]:
        return self._bias.keys()

    def apply(self, ids: list[int], x: np.ndarray) -> np.ndarray:
        x += np.array([self._bias.get(token, 0.0) for token in ids])
        return x

    def max_lowered(self) -> int | None:
        return None if any(bias > 0 for bias in self._bias.values()) else len(self._bias)


def bias_of(params: SamplingParams) -> list[Edit]:
    return [LogitBias(params.logit_bias)] if params.logit_bias else []


def edit_listed(ids: np.ndarray, logits: np.ndarray, edits: Sequence[Edit]) -> np.ndarray:
    """The logits (k,) float32 of the tokens `ids` (k,) after all edits."""
    listed = ids.tolist()
    x = logits.astype(np.float64)
    for edit in edits:
        if edit.touched():
            x = edit.apply(listed, x)
    return x.astype(np.float32)


def edit_row(logits: np.ndarray, edits: Sequence[Edit]) -> np.ndarray:
    """A copy of a whole row (vocab_size,) float32 after all edits; the row itself where there is
    nothing to change."""
    touched = {token for edit in edits for token in edit.touched()}
    if not touched:
        return logits
    ids = np.fromiter(touched, np.int64, len(touched))
    edited = logits.copy()
    edited[ids] = edit_listed(ids, logits[ids], edits)
    return edited
