"""SentencePiece BPE (merge by score, bytes as a fall-back) on the `tokenizers` library where that
gives the same ids, in Python where it cannot.

The library merges by a rank that every pair of pieces has for itself. Pairs ranked by the score of
what they make give the ids of the merge by score as long as no two pieces share a score. Llama 2's
vocabulary shares one among its runs of spaces only; there the two are compared at load."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from typing import Protocol

from tokenizers import Regex
from tokenizers import Tokenizer as Engine
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import Split

from dllama.errors import TokenizerError
from dllama.tokenizer.score_merge import ScoreMerge
from dllama.tokenizer.vocabulary import BYTE_TEXTS, SPACE_MARK, TokenType, Vocabulary


class TextEngine(Protocol):
    """Plain text to ids; special tokens and spaces are the caller's business."""

    def encode(self, text: str) -> list[int]: ...


class LibraryEngine:
    """A TextEngine that runs in the `tokenizers` library, without the GIL."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def encode(self, text: str) -> list[int]:
        """Raises TokenizerError where an expression of the tokenizer gives up on the text."""
        try:
            # The batch call is the one that leaves out the offsets into the text: twice as fast.
            (encoding,) = self._engine.encode_batch_fast([text], add_special_tokens=False)
        except BaseException as error:
            if type(error).__name__ != "PanicException":  # as the library calls what ends its code
                raise
            raise TokenizerError(
                f"The expressions by which the tokenizer cuts words gave up on a text of "
                f"{len(text)} characters ({error}); give another tokenizer with --tokenizer."
            ) from error
        ids: list[int] = encoding.ids
        return ids


def build_spm_engine(vocabulary: Vocabulary) -> TextEngine:
    """An engine whose ids are exactly those of the merge by score, for text with "▁" for " "."""
    # A piece with a space in it is cut out of a text before: here spaces are "▁".
    ids = {piece: i for piece, i in vocabulary.mergeable().items() if " " not in piece}
    scores = {piece: float(vocabulary.scores[i]) for piece, i in ids.items()}
    byte_ids = _byte_ids(vocabulary)
    exact = ScoreMerge(ids, scores, byte_ids, vocabulary.unk_id)
    if not _covers_its_letters(ids):
        return exact
    tied = _tied_pieces(ids, scores, _always_cut(vocabulary))
    if tied and not _is_one_run(tied, ids):
        return exact
    fast = LibraryEngine(_library_engine(vocabulary, ids, scores, byte_ids))
    if tied and not _agree_on_runs(fast, exact, tied):
        return exact
    return fast


def _byte_ids(vocabulary: Vocabulary) -> dict[int, int]:
    return {
        BYTE_TEXTS[vocabulary.tokens[i]]: i
        for i, kind in enumerate(vocabulary.types)
        if kind == TokenType.BYTE and vocabulary.tokens[i] in BYTE_TEXTS
    }


def _library_engine(
    vocabulary: Vocabulary,
    ids: dict[str, int],
    scores: Mapping[str, float],
    byte_ids: Mapping[int, int],
) -> Engine:
    pieces = ids | {vocabulary.tokens[i]: i for i in byte_ids.values()}
    unk = None
    if vocabulary.unk_id is not None:
        unk = vocabulary.tokens[vocabulary.unk_id]
        pieces[unk] = vocabulary.unk_id
    model = BPE(
        vocab=pieces,
        merges=_merges_by_score(ids, scores),
        unk_token=unk,
        fuse_unk=False,
        byte_fallback=True,
    )
    engine = Engine(model)
    if not any(SPACE_MARK in piece.lstrip(SPACE_MARK) for piece in ids):
        # No merge crosses a space; words can be cut first, and the library remembers words.
        words = Regex(f"{SPACE_MARK}*[^{SPACE_MARK}]+|{SPACE_MARK}+")
        engine.pre_tokenizer = Split(words, "isolated")
    return engine


def _merges_by_score(ids: Mapping[str, int], scores: Mapping[str, float]) -> list[tuple[str, str]]:
    """Every way to put a piece together from two, the pieces of the highest score first."""
    order = sorted(ids, key=lambda piece: (-scores[piece], ids[piece]))
    return [
        (piece[:at], piece[at:])
        for piece in order
        for at in range(1, len(piece))
        if piece[:at] in ids and piece[at:] in ids
    ]


def _covers_its_letters(ids: Mapping[str, int]) -> bool:
    """Returns whether every letter of every piece is a piece, as the library needs."""
    return all(letter in ids for letter in set("".join(ids)))


def _always_cut(vocabulary: Vocabulary) -> set[str]:
    """Pieces that are taken out of a text before any merging, wherever they stand in it: they share
    one score in Gemma's vocabularies. Those of spaces stand there otherwise."""
    kinds = zip(vocabulary.tokens, vocabulary.types, strict=True)
    return {
        text for text, kind in kinds if kind == TokenType.USER_DEFINED and SPACE_MARK not in text
    }


def _tied_pieces(
    ids: Mapping[str, int], scores: Mapping[str, float], cut: Collection[str]
) -> list[str]:
    """Pieces of two letters and more, but those that are `cut` out before, that share their score
    with another such piece."""
    merged = [piece for piece in ids if len(piece) > 1 and piece not in cut]
    count = Counter(scores[piece] for piece in merged)
    return [piece for piece in merged if count[scores[piece]] > 1]


def _is_one_run(tied: list[str], ids: Mapping[str, int]) -> bool:
    """Returns whether the pieces are all runs of one letter, with runs of it in no other piece: the
    ids of a run then depend on its length alone."""
    letter = tied[0][0]
    if any(piece != letter * len(piece) for piece in tied):
        return False
    return {piece for piece in ids if letter * 2 in piece} == set(tied)


def _agree_on_runs(fast: TextEngine, exact: TextEngine, tied: list[str]) -> bool:
    letter, longest = tied[0][0], max(map(len, tied))
    runs = [letter * n for n in range(1, 4 * longest + 2)]
    return all(fast.encode(run) == exact.encode(run) for run in runs)
