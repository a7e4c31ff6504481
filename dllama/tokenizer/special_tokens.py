"""Finding special tokens in text."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping


class SpecialTokens:
    """Cuts text into plain parts and the tokens of a fixed set; the first match counts, of those
    that begin at the same place the longest."""

    def __init__(self, ids: Mapping[str, int], strips_right: frozenset[int] = frozenset()) -> None:
        self._ids = {text: i for text, i in ids.items() if text}
        self._strips_right = strips_right
        longest_first = sorted(self._ids, key=len, reverse=True)
        pattern = "|".join(map(re.escape, longest_first))
        self._pattern = re.compile(pattern) if pattern else None

    def cut(self, text: str) -> Iterator[str | int]:
        """Plain text as str (never empty) and special tokens as ids, in order."""
        at = 0
        for match in self._pattern.finditer(text) if self._pattern else ():
            if match.start() > at:
                yield text[at : match.start()]
            token = self._ids[match.group()]
            yield token
            at = match.end()
            if token in self._strips_right:
                at = len(text) - len(text[at:].lstrip())
        if at < len(text):
            yield text[at:]
