"""The seam between the engine and whatever knows which texts are allowed: masks over token ids.
The engine knows no text; dllama/constraints fulfils this with llguidance."""

from __future__ import annotations

from collections.abc import Collection
from typing import Protocol

import numpy as np

from dllama.step import LogitRow


class Constraint(Protocol):
    """What may come next in one sequence. It follows the answer's tokens, one `advance` each, and
    keeps its place through pre-emptions, because the tokens stay."""

    def mask(self) -> np.ndarray:
        """(vocab_size,) bool: the tokens that may come next, among them the sequence's stop ids
        where the text may end. All false where the text is complete and has no stop id to say so.

        It has been computed beside the forward pass; waits for what is left of that. Raises
        DllamaError where the grammar cannot be followed any further.
        """
        ...

    def keep(self, token: int) -> int:
        """The token that was drawn; or another one that the mask allows, where the text behind it
        could not be completed any more in the tokens that are left."""
        ...

    def advance(self, token: int) -> bool:
        """Notes a token that the mask allowed and begins the next mask in the background. False
        where the text is complete: nothing but its end may follow. Raises DllamaError."""
        ...


class ConstraintMaker(Protocol):
    """Makes constraints for one vocabulary."""

    def make(
        self, grammar: str, stop_ids: Collection[int], n_left: int | None = None
    ) -> Constraint:
        """A constraint at its beginning, of an answer of `n_left` tokens at most (None: without an
        end); compiles in the background, so that this takes no time and a grammar that cannot be
        compiled is told by the first `mask`."""
        ...

    def close(self) -> None: ...


def only(row: LogitRow, token: int) -> LogitRow:
    """The whole row with a single token that may come."""
    assert row.ids is None, "a mask needs the whole row"
    return masked(row, np.arange(len(row.logits)) == token)


def masked(row: LogitRow, mask: np.ndarray) -> LogitRow:
    """The whole row with minus infinity for all that the mask (vocab_size,) leaves out. The
    log-sum-exp stays that of the model, so that probabilities remain the model's own."""
    assert row.ids is None, "a mask needs the whole row"
    logits = np.where(mask, row.logits, np.float32(-np.inf))
    return LogitRow(None, logits, row.log_sum_exp)
