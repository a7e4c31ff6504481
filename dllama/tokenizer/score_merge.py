"""SentencePiece's merge by score, exactly as defined, in Python: for the vocabularies in which
pieces share a score, which the `tokenizers` library cannot express."""

from __future__ import annotations

import heapq
import re
from collections.abc import Mapping

from dllama.tokenizer.vocabulary import SPACE_MARK

_MAX_KEPT_WORDS = 50_000
_WORDS = re.compile(f"{SPACE_MARK}*[^{SPACE_MARK}]+|{SPACE_MARK}+")


class ScoreMerge:
    """Merges, as long as there is one, the neighbours whose joined text is the piece of the
    highest score, the leftmost first among equals; what is no piece in the end becomes bytes.

    `scores` are those of the pieces that merging may make. Source: SentencePiece's BPE model.
    """

    def __init__(
        self,
        ids: Mapping[str, int],
        scores: Mapping[str, float],
        byte_ids: Mapping[int, int],
        unk_id: int | None,
    ) -> None:
        self._ids = ids
        self._scores = scores
        self._byte_ids = byte_ids
        self._unk_id = unk_id
        # No merge crosses the border of two words if no piece has a space after a letter.
        self._has_words = not any(SPACE_MARK in piece.lstrip(SPACE_MARK) for piece in ids)
        self._kept: dict[str, list[int]] = {}

    def encode(self, text: str) -> list[int]:
        """The ids of a text whose spaces are already "▁"."""
        ids: list[int] = []
        for word in _WORDS.findall(text) if self._has_words else (text,):
            known = self._kept.get(word)
            if known is None:
                known = self._ids_of(self.merge(word))
                if len(self._kept) < _MAX_KEPT_WORDS:
                    self._kept[word] = known
            ids += known
        return ids

    def merge(self, word: str) -> list[str]:
        """The pieces of a word; joined they are the word."""
        pieces = list(word)
        after = [*range(1, len(pieces)), -1]
        before = [*range(-1, len(pieces) - 1)]
        queue: list[tuple[float, int, int, str]] = []

        def offer(left: int, right: int) -> None:
            if left >= 0 and right >= 0:
                joined = pieces[left] + pieces[right]
                score = self._scores.get(joined)
                if score is not None:
                    heapq.heappush(queue, (-score, left, right, joined))

        for i in range(1, len(pieces)):
            offer(i - 1, i)
        while queue:
            _, left, right, joined = heapq.heappop(queue)
            if after[left] != right or pieces[left] + pieces[right] != joined:
                continue  # one of the two has been merged with another since
            pieces[left], pieces[right] = joined, ""
            after[left] = after[right]
            if after[left] >= 0:
                before[after[left]] = left
            after[right] = -1
            offer(before[left], left)
            offer(left, after[left])
        return [piece for piece in pieces if piece]

    def _ids_of(self, pieces: list[str]) -> list[int]:
        ids: list[int] = []
        for piece in pieces:
            if piece in self._ids:
                ids.append(self._ids[piece])
                continue
            in_bytes = [self._byte_ids.get(b) for b in piece.encode()]
            found = [i for i in in_bytes if i is not None]
            if len(found) == len(in_bytes):
                ids += found
            elif self._unk_id is not None:
                ids.append(self._unk_id)
        return ids
