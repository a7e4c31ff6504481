"""Compiles grammars without a model: over a vocabulary of the 256 bytes and an end."""

from __future__ import annotations

import json
from functools import cache

from llguidance import LLMatcher, LLParserLimits, LLTokenizer, TokenizerWrapper


def grammar_text(*parts: dict[str, object]) -> str:
    """Returns the grammar as an engine takes it; the first part is where an answer begins."""
    return json.dumps({"grammars": list(parts)}, ensure_ascii=False)


def byte_matcher(grammar: str) -> LLMatcher | None:
    """Returns a matcher at the beginning of the grammar, which may be in error; None if llguidance
    refuses to make one."""
    limits = LLParserLimits(verbose_errors=False)
    try:
        return LLMatcher(_byte_tokenizer(), grammar, log_level=0, limits=limits)
    except (ValueError, RuntimeError):
        return None


class _Bytes(TokenizerWrapper):
    """A vocabulary of the 256 bytes and an end."""

    def __init__(self) -> None:
        self.eos_token_id = 256
        self.bos_token_id = None
        self.tokens = [bytes([b]) for b in range(256)] + [b"<end>"]
        self.special_token_ids = [256]
        self.is_tokenizer_wrapper = True

    def __call__(self, text: str | bytes) -> list[int]:
        return list(text.encode() if isinstance(text, str) else text)


@cache
def _byte_tokenizer() -> LLTokenizer:
    return LLTokenizer(_Bytes(), n_vocab=257, eos_token=[256])
