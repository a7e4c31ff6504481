"""Grammars in the one form that crosses to an engine, made of what clients send: JSON schemas,
llama.cpp's GBNF, Lark, regular expressions. All of it is checked here, before anything is queued.

The form is llguidance's own: a JSON object with a list of "grammars", of which the first is the
beginning and the others are named by it as @name."""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache

from llguidance import LLMatcher, regex_to_lark
from llguidance.gbnf_to_lark import gbnf_to_lark as convert

from dllama.constraints.compile import byte_matcher, grammar_text
from dllama.constraints.nearest import Fault, nearest
from dllama.constraints.relaxed import relaxed
from dllama.constraints.schemas import closed
from dllama.errors import RequestError

NO_TEXT = "NoExtensionBias"  # what llguidance calls a grammar whose first step leads nowhere
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
    """Returns the grammar of JSON that is valid under `schema`, all of whose keywords count. Raises
    RequestError for a wrong schema."""
    if isinstance(schema, bool):
        schema = {} if schema else {"not": {}}
    if not isinstance(schema, dict):
        raise RequestError("A JSON schema must be an object, or true for any JSON value.")
    whitespace = {"whitespace_pattern": WHITESPACE}
    return Part("json_schema", {**closed(schema), "x-guidance": whitespace})


def refuse_faults(schema: object, param: str, *, only_malformed: bool = False) -> None:
    """Raises RequestError for the first keyword of a schema that a grammar cannot hold; with
    `only_malformed` for the first with a value that JSON Schema does not know."""
    for fault in nearest(schema).faults:
        if fault.is_malformed:
            raise RequestError(
                f"`{param}` is no JSON schema: the value at {fault.path:.200} may not be "
                f"{str(fault.value)[:60]!r}. Correct it.",
                param=param,
            )
        if not only_malformed:
            raise RequestError(
                f"`{param}` has a keyword that this server cannot hold an answer to, at "
                f"{fault.path:.200}. Leave it out, or do not ask for `strict`.",
                param=param,
            )


def nearest_object(schema: dict[str, object]) -> Part:
    """Returns the grammar of JSON objects that is nearest to `schema`; there is one for any."""
    key = json.dumps(schema, default=str)
    if len(key) > MAX_SOURCE_CHARS:  # nor is it kept
        return _nearest_part(ANY_OBJECT)
    return _nearest_object(key)


@lru_cache(maxsize=256)
def _nearest_object(schema: str) -> Part:
    """As nearest_object; cached because clients send the same tools with every request."""
    found = nearest(json.loads(schema)).schema
    if isinstance(found, bool):
        return _nearest_part(ANY_OBJECT)
    compiling = relaxed({**found, "type": "object"}, lambda s: _compiles(_nearest_part(s)))
    return _nearest_part({**compiling, "type": "object"})


def nearest_part(schema: object) -> tuple[Part, list[Fault]]:
    """Returns the grammar that is nearest to a schema, and what it does not hold."""
    found = nearest(schema)
    if found.schema is False:
        return json_part(False), found.faults
    return _nearest_part({} if found.schema is True else found.schema), found.faults


def _nearest_part(schema: dict[str, object]) -> Part:
    guidance = {"whitespace_pattern": WHITESPACE, "coerce_one_of": True, "lenient": True}
    return Part("json_schema", {**closed(schema), "x-guidance": guidance})


def _compiles(part: Part) -> bool:
    matcher = byte_matcher(whole_answer(part))
    if matcher is None or matcher.is_error():
        return False
    return any(matcher.compute_bitmask()) and not matcher.is_error()


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
    matcher = byte_matcher(text)
    if matcher is None:
        raise RequestError(f"`{param}` cannot be used: it is no grammar.", param=param)
    mask = matcher.compute_bitmask() if not matcher.is_error() else b""
    if matcher.is_error():
        raise RequestError(f"`{param}` cannot be used: {_reason(matcher)}", param=param)
    if not any(mask):
        raise RequestError(
            f"`{param}` allows no text at all; nothing could be answered. Correct it.", param=param
        )


def _reason(matcher: LLMatcher) -> str:
    """Returns what the library says of a grammar, in words that its author knows."""
    lines = [line.strip() for line in matcher.get_error().splitlines() if line.strip()]
    if NO_TEXT in lines:
        return "no text satisfies it, as a rule leads to itself and nowhere else. Give it an end."
    lines = [line for line in lines if line != "<non-verbose/>"]
    text = " ".join(lines)[:500] or matcher.stop_reason()
    return text if text.endswith((".", "!", "?")) else text + "."


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
