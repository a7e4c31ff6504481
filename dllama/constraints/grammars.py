"""Grammars in the one form that crosses to an engine, made of what clients send: JSON schemas,
llama.cpp's GBNF, Lark, regular expressions. All of it is checked here, before anything is queued.

The form is llguidance's own: a JSON object with a list of "grammars", of which the first is the
beginning and the others are named by it as @name."""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import StrEnum
from functools import cache

from llguidance import LLMatcher, LLParserLimits, LLTokenizer, TokenizerWrapper, regex_to_lark
from llguidance.gbnf_to_lark import gbnf_to_lark as convert

from dllama.constraints.schemas import closed
from dllama.errors import RequestError

MAX_SOURCE_CHARS = 256 * 1024  # the longest schemas in use have some 100 kB
# As much white space as people write: a small model, once it may, fills the context with it.
WHITESPACE = r"( |\n{1,2}[ \t]{0,20})?"
ANY_OBJECT: dict[str, object] = {"type": "object"}


class GrammarKind(StrEnum):
    JSON_SCHEMA = "json_schema"
    GBNF = "gbnf"
    LARK = "lark"
    REGEX = "regex"


@dataclass(frozen=True, slots=True)
class Part:
    """One grammar among those of a request, as llguidance takes it: a key and its value."""

    key: str
    value: object

    def named(self, name: str) -> dict[str, object]:
        return {"name": name, self.key: self.value}


def json_part(schema: object) -> Part:
    """Returns the grammar of JSON that is valid under `schema`. Raises RequestError for a wrong
    schema."""
    if isinstance(schema, bool):
        schema = {} if schema else {"not": {}}
    if not isinstance(schema, dict):
        raise RequestError("A JSON schema must be an object, or true for any JSON value.")
    whitespace = {"whitespace_pattern": WHITESPACE}
    return Part("json_schema", {**closed(schema), "x-guidance": whitespace})


def source_part(kind: GrammarKind, source: object) -> Part:
    """Returns the grammar of a text (or of a schema) in one of the kinds. Raises RequestError."""
    if kind is GrammarKind.JSON_SCHEMA:
        return json_part(source)
    assert isinstance(source, str), "all but schemas are texts"
    if kind is GrammarKind.REGEX:
        return Part("lark_grammar", f"start: /{regex_to_lark(source, '')}/")
    if kind is GrammarKind.GBNF:
        return Part("lark_grammar", gbnf_to_lark(source))
    return Part("lark_grammar", source)


def grammar_text(*parts: dict[str, object]) -> str:
    """Returns the grammar as an engine takes it; the first part is where an answer begins."""
    return json.dumps({"grammars": list(parts)}, ensure_ascii=False)


def whole_answer(part: Part) -> str:
    """Returns the grammar of answers that are the part and nothing else."""
    return grammar_text(part.named("answer"))


def check_part(part: Part, param: str) -> None:
    """Compiles the part once and asks for its first mask. Raises RequestError, naming `param`,
    where it is no grammar, too large, or allows no text at all."""
    text = whole_answer(part)
    if len(text) > MAX_SOURCE_CHARS:
        raise RequestError(
            f"`{param}` has {len(text)} characters; at most {MAX_SOURCE_CHARS} are taken. Use a "
            "smaller one.",
            param=param,
        )
    try:
        limits = LLParserLimits(verbose_errors=False)
        matcher = LLMatcher(_byte_tokenizer(), text, log_level=0, limits=limits)
        mask = matcher.compute_bitmask() if not matcher.is_error() else b""
    except (ValueError, RuntimeError) as error:
        raise RequestError(f"`{param}` cannot be used: {error}.", param=param) from error
    if matcher.is_error():
        raise RequestError(f"`{param}` cannot be used: {_reason(matcher)}", param=param)
    if not any(mask):
        raise RequestError(
            f"`{param}` allows no text at all; nothing could be answered. Correct it.", param=param
        )


def _reason(matcher: LLMatcher) -> str:
    lines = [line.strip() for line in matcher.get_error().splitlines() if line.strip()]
    text = " ".join(lines)[:500] or matcher.stop_reason()
    return text if text.endswith((".", "!", "?")) else text + "."


class _Bytes(TokenizerWrapper):
    """A vocabulary of the 256 bytes and an end: grammars can be tried without a model."""

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


def gbnf_to_lark(source: str) -> str:
    """Translates llama.cpp's grammar notation to Lark. Raises RequestError where the source is no
    GBNF."""
    try:
        return str(convert(source))
    except RecursionError:
        reason = "its parentheses are nested too deep"
    except Exception as error:  # the library raises bare Exceptions
        reason = str(error)[:300]
    raise RequestError(f"`grammar` is no GBNF: {reason}.", param="grammar")
