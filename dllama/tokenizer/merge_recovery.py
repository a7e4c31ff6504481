"""Merges of a byte-level BPE vocabulary that was stored without them: only the order of its
pieces is known (`.t` files, tiktoken)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence


def all_splits(pieces: Sequence[str], ids: Mapping[str, int]) -> list[tuple[str, str]]:
    """Every pair of pieces that makes a piece, in the order of what they make: tiktoken's rule,
    which merges any neighbours whose joined text is a piece. `pieces` come in order of rank."""
    merges: list[tuple[str, str]] = []
    for piece in pieces:
        pairs = [
            (ids[piece[:at]], ids[piece[at:]], at)
            for at in range(1, len(piece))
            if piece[:at] in ids and piece[at:] in ids
        ]
        merges += [(piece[:at], piece[at:]) for _, _, at in sorted(pairs)]
    return merges


def trained_pairs(pieces: Sequence[str], ids: Mapping[str, int]) -> list[tuple[str, str]]:
    """The one pair that made each piece when the vocabulary was trained: what the merges before it
    make of the piece's own letters. Pieces that are not made of two are left out."""
    ranks: dict[tuple[str, str], int] = {}
    for rank, piece in enumerate(pieces):
        pair = _only_split(piece, ids) or _last_two(piece, ranks)
        if pair:
            ranks.setdefault(pair, rank)
    return list(ranks)


def _only_split(piece: str, ids: Mapping[str, int]) -> tuple[str, str] | None:
    """The pair where only one is possible."""
    found: tuple[str, str] | None = None
    for at in range(1, len(piece)):
        if piece[:at] in ids and piece[at:] in ids:
            if found:
                return None
            found = piece[:at], piece[at:]
    return found


def _last_two(piece: str, ranks: Mapping[tuple[str, str], int]) -> tuple[str, str] | None:
    """The two parts that the merges known so far leave of a piece, if they leave two."""
    parts = list(piece)
    while len(parts) > 2:
        best, best_at = len(ranks) + len(piece), -1
        for at in range(len(parts) - 1):
            rank = ranks.get((parts[at], parts[at + 1]))
            if rank is not None and (best_at < 0 or rank < best):
                best, best_at = rank, at
        if best_at < 0:
            return None
        parts[best_at : best_at + 2] = [parts[best_at] + parts[best_at + 1]]
    return (parts[0], parts[1]) if len(parts) == 2 else None
