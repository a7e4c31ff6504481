"""The next token of a sequence, from a row of logits, and what it means for the sequence."""

from __future__ import annotations

from typing import NamedTuple

from dllama.engine.constraint import masked, only
from dllama.engine.sequence import Sequence
from dllama.errors import DllamaError
from dllama.requests import FinishReason
from dllama.step import LogitRow


class Drawn(NamedTuple):
    """A token (None: the end came without one), and whether and why the sequence ends with it."""

    token: int | None
    finish: FinishReason | None = None
    error: str | None = None


def draw_token(sequence: Sequence, row: LogitRow, max_len: int) -> Drawn:
    """Draws the token that follows those of the sequence, under its grammar if it has one, and
    adds it to them; a stop id is not added. `max_len` tokens are a full context."""
    constraint = sequence.constraint
    is_complete = False
    try:
        allowed = row
        if constraint is not None:
            mask = constraint.mask()
            if not mask.any():
                return Drawn(None, FinishReason.STOP)
            allowed = masked(row, mask)
        token, probs = sequence.sampler.choose(allowed, sequence.tokens, row)
        if constraint is not None and token not in sequence.stop_ids:
            if (kept := constraint.keep(token)) != token:
                token, probs = sequence.sampler.choose(only(row, kept), sequence.tokens, row)
            is_complete = not constraint.advance(token)
    except DllamaError as error:
        return Drawn(None, FinishReason.ERROR, str(error))
    if token in sequence.stop_ids:
        return Drawn(None, FinishReason.STOP)
    sequence.tokens.append(token)
    if probs is not None:
        sequence.probs.append(probs)
    if is_complete:
        return Drawn(token, FinishReason.STOP)
    is_full = len(sequence.tokens) == max_len and not sequence.may_shift
    is_last = sequence.n_generated == sequence.max_tokens or is_full
    return Drawn(token, FinishReason.LENGTH if is_last else None)
