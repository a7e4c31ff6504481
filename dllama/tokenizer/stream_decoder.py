"""Tokens to text, as they come."""

from __future__ import annotations

import codecs
from collections.abc import Collection, Iterable
from typing import Protocol


class Pieces(Protocol):
    """The part of a tokenizer that decoding reads."""

    @property
    def add_space_prefix(self) -> bool: ...

    def token_bytes(self, token: int) -> bytes: ...

    def is_control(self, token: int) -> bool: ...

    def is_special(self, token: int) -> bool: ...


class StreamDecoder:
    """Decodes tokens that arrive one by one: never half a character, U+FFFD for invalid bytes.

    All that `push` and `flush` return, joined, is what decoding all tokens at once gives. The
    encoder puts a space before the text of a SentencePiece model, and after each special token;
    decoding takes it away again, unless the tokens continue a prompt: then the space is text.
    Control tokens in `kept` are not skipped: they are marks that the server reads.
    """

    def __init__(
        self,
        pieces: Pieces,
        *,
        skip_special: bool,
        is_continuation: bool,
        kept: Collection[int] = (),
    ) -> None:
        self._pieces = pieces
        self._kept = kept
        self._skip_special = skip_special
        self._drops_spaces = pieces.add_space_prefix and not is_continuation
        self._drop_space = self._drops_spaces
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")

    def push(self, ids: Iterable[int]) -> str:
        """Returns the text that the tokens complete; "" while a character is unfinished."""
        return self._utf8.decode(b"".join(map(self._bytes_of, ids)))

    def flush(self) -> str:
        """Returns the rest: U+FFFD for a character that was never completed."""
        return self._utf8.decode(b"", final=True)

    def _bytes_of(self, token: int) -> bytes:
        raw = self._pieces.token_bytes(token)
        if self._pieces.is_special(token):
            self._drop_space = self._drops_spaces
            skips = self._skip_special and self._pieces.is_control(token)
            return b"" if skips and token not in self._kept else raw
        if self._drop_space:
            self._drop_space = False
            return raw.removeprefix(b" ")
        return raw
