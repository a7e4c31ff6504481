"""SentencePiece's scores, from the merges that a tokenizer.json has in their place.

The library merges by the rank of a pair, SentencePiece by the score of what a pair makes. The two
give the same tokens where the list has all pairs of each piece, one piece after the other."""

from __future__ import annotations

from collections.abc import Sequence

from dllama.errors import TokenizerError
from dllama.formats.checkpoint.tokenizer_json import TokenizerJson


def merge_scores(parts: TokenizerJson, tokens: Sequence[str]) -> list[float]:
    """Returns a score for each token: the earlier its merges, the higher. Raises TokenizerError
    where no scores say what the merges do."""
    order: dict[str, int] = {}
    last = None
    for left, right in parts.merges:
        piece = left + right
        if piece != last and piece in order:
            raise _inexpressible(parts, piece)
        order.setdefault(piece, len(order))
        last = piece
    known = set(parts.merges)
    never = {token.text for token in parts.added if token.is_special} | {parts.unk}
    for piece in parts.vocab.keys() - never:
        splits = ((piece[:at], piece[at:]) for at in range(1, len(piece)))
        if not all(
            pair in known for pair in splits if pair[0] in parts.vocab and pair[1] in parts.vocab
        ):
            raise _inexpressible(parts, piece)
    n = len(order)
    return [-float(order.get(text, n + i)) for i, text in enumerate(tokens)]


def _inexpressible(parts: TokenizerJson, piece: str) -> TokenizerError:
    return TokenizerError(
        f"{parts.path}: its merges, such as those that make {piece!r}, are not in the order of "
        f"scores, as SentencePiece has them; this version knows no other with bytes to fall back "
        f"to. Give another tokenizer with --tokenizer (a GGUF file of the model)."
    )
