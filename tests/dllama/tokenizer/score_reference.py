"""The merge by score written for reading, not for speed: the oracle of the SPM tests."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import pairwise


def merge_by_score(text: str, scores: Mapping[str, float]) -> list[str]:
    """Joins the neighbours that make the piece of the highest score, the leftmost of equals."""
    pieces = list(text)
    while True:
        joined = ["".join(pair) for pair in pairwise(pieces)]
        found = [(-scores[piece], i) for i, piece in enumerate(joined) if piece in scores]
        if not found:
            return pieces
        at = min(found)[1]
        pieces[at : at + 2] = [joined[at]]


def ids_by_score(
    text: str, scores: Mapping[str, float], ids: Mapping[str, int], byte_id: Callable[[int], int]
) -> list[int]:
    """What the pieces are numbered; a piece that is none gives the ids of its bytes."""
    found: list[int] = []
    for piece in merge_by_score(text, scores):
        found += [ids[piece]] if piece in ids else [byte_id(b) for b in piece.encode()]
    return found
