"""The protocol of grammars: masks over token ids. The engine knows no text; dllama/constraints
implements this with llguidance."""

from __future__ import annotations

from collections.abc import Collection
from typing import Protocol

import numpy as np

from dllama.requests import Resume
from dllama.step import LogitRow


class Constraint(Protocol):
    """The allowed next tokens of one sequence. It follows the answer's tokens, one `advance` each;
    pre-emptions do not change it, because the tokens stay."""

    def mask(self) -> np.ndarray:
        """(vocab_size,) bool: the tokens that may come next, among them the sequence's stop ids
        where the text may end. All false where the text is complete and has no stop id to say so.

        It is computed in the background during the forward pass; waits for the rest. Raises
        DllamaError where the grammar cannot be followed any further.
        """
        ...

    def keep(self, token: int) -> int:
        """The sampled token; or another one that the mask allows, if the text could not be
        completed after it in the remaining tokens."""
        ...

    @property
    def n_replaced(self) -> int:
        """How many tokens `keep` has replaced, of those that count towards its limit."""
        ...

    def advance(self, token: int) -> bool:
        """Records a token that the mask allowed and begins the next mask in the background. False
        where the text is complete: only its end may follow. Raises DllamaError."""
        ...


class ConstraintMaker(Protocol):
    """Makes constraints for one vocabulary."""

    def make(
        self,
        grammar: str,
        stop_ids: Collection[int],
        n_left: int | None = None,
        resume: Resume | None = None,
    ) -> Constraint:
        """The constraint of an answer of `n_left` tokens at most (None: unlimited), which has those
        of `resume` already. The grammar is compiled, and these tokens followed, in the background;
        the first `mask` raises if that fails."""
        ...

    def close(self) -> None: ...


def only(row: LogitRow, token: int) -> LogitRow:
    """Masks all but one token of a whole row."""
    assert row.ids is None, "a mask needs the whole row"
    return masked(row, np.arange(len(row.logits)) == token)


def masked(row: LogitRow, mask: np.ndarray) -> LogitRow:
    """Masks a whole row: minus infinity where `mask` (vocab_size,) is false. The log-sum-exp stays
    that of the model, and with it log-probabilities."""
    assert row.ids is None, "a mask needs the whole row"
    logits = np.where(mask, row.logits, np.float32(-np.inf))
    return LogitRow(None, logits, row.log_sum_exp)
