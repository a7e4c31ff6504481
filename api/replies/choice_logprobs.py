"""Puts the probabilities of tokens into the choices of an answer or of a chunk."""

from __future__ import annotations

from collections.abc import Sequence

from api.answers.sequence import TextSequence
from api.replies.logprobs import Json, LogprobStyle


def tell_logprobs(
    said: Json,
    sequences: Sequence[TextSequence],
    style: LogprobStyle | None,
    *,
    is_whole: bool = False,
) -> None:
    """Fills in `logprobs` of each choice of `said`, which stand in the order of their
    `sequences`, with what has not been told yet. Nothing without a style."""
    choices = said.get("choices")
    if style is None or not isinstance(choices, list):
        return
    for choice, sequence in zip(choices, sequences, strict=True):
        choice["logprobs"] = sequence.take_logprobs(style, or_empty=is_whole)
