"""One vector for a text: its tokens' last hidden states, pooled as they are computed."""

from __future__ import annotations

import numpy as np

POOLINGS = ("mean", "last", "cls")


class Pooler:
    """Takes the states of a sequence chunk by chunk; one that is computed anew starts over."""

    def __init__(self, kind: str) -> None:
        assert kind in POOLINGS, "requests are checked before they become sequences"
        self._kind = kind
        self._n = 0
        self._sum = np.zeros(0)  # (dim,) float64

    def take(self, position: int, states: np.ndarray) -> None:
        """The states (n, dim) of the next n tokens, the first of them at `position`."""
        if position == 0:
            self._n, self._sum = 0, np.zeros(states.shape[1])
        assert position == self._n, "states come in the order of their tokens, all of them"
        self._n += len(states)
        if self._kind == "mean":
            self._sum += states.sum(axis=0, dtype=np.float64)
        elif self._kind == "last":
            self._sum = states[-1].astype(np.float64)
        elif position == 0:
            self._sum = states[0].astype(np.float64)

    def vector(self) -> np.ndarray:
        """The pooled states, (dim,) float32, not normalised."""
        pooled = self._sum / self._n if self._kind == "mean" else self._sum
        return pooled.astype(np.float32)
