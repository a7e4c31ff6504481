"""The part of a vocabulary that a grammar needs: the bytes of each token, the tokens that are not
text, and the usual tokens of a piece of text."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol


class TokenTable(Protocol):
    """The part of a dllama.tokenizer.Tokenizer that is read here."""

    @property
    def vocab_size(self) -> int: ...

    @property
    def eog_ids(self) -> frozenset[int]: ...

    def encode_inside(self, text: str) -> list[int]: ...

    def token_bytes(self, token: int) -> bytes: ...

    def is_control(self, token: int) -> bool: ...


@dataclass(frozen=True, slots=True)
class VocabularyBytes:
    """`tokens[i]` are the bytes of token i; `control_ids` are never made from text; `end_ids` end a
    generation. `encode` gives the tokens of a piece of text as the model is used to them, for text
    that a grammar forces."""

    tokens: list[bytes]
    control_ids: list[int]
    end_ids: list[int]
    encode: Callable[[str], list[int]]

    @classmethod
    def of(cls, table: TokenTable) -> VocabularyBytes:
        n = table.vocab_size
        return cls(
            tokens=[table.token_bytes(i) for i in range(n)],
            control_ids=[i for i in range(n) if table.is_control(i)],
            end_ids=sorted(table.eog_ids),
            encode=table.encode_inside,
        )

    def byte_ids(self) -> dict[int, int]:
        """Returns the first token that writes a single byte, for each byte that has one."""
        control = set(self.control_ids)
        ids: dict[int, int] = {}
        for token, text in enumerate(self.tokens):
            if len(text) == 1 and token not in control:
                ids.setdefault(text[0], token)
        return ids
