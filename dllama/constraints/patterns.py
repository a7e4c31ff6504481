"""Regular expressions and formats of JSON schemas: which of them a grammar can hold, and the
nearest expression to one that it cannot."""

from __future__ import annotations

import re
from functools import lru_cache

from llguidance import LLMatcher

from dllama.constraints.compile import byte_matcher, grammar_text

_LOOK_AROUND = re.compile(r"\(\?(<?[=!])")


@lru_cache(maxsize=1024)
def is_format(name: str) -> bool:
    """True if a grammar can hold a text to this format."""
    return _compiles({"type": "string", "format": name})


@lru_cache(maxsize=1024)
def nearest_pattern(pattern: str) -> str | None:
    """Returns a pattern that every text of `pattern` fits, as narrow as a grammar can hold: the
    pattern itself, or one without its look-arounds. None where there is no such pattern."""
    if _compiles({"type": "string", "pattern": pattern}):
        return pattern
    plain = _without_look_around(pattern)
    if plain is not None and plain != pattern and _compiles({"type": "string", "pattern": plain}):
        return plain
    return None


def _compiles(schema: dict[str, object]) -> bool:
    matcher: LLMatcher | None = byte_matcher(grammar_text({"name": "x", "json_schema": schema}))
    return matcher is not None and not matcher.is_error()


def _without_look_around(pattern: str) -> str | None:
    """Returns the pattern without assertions about the text around, which only narrow it. None if
    its parentheses are not closed."""
    while (found := _LOOK_AROUND.search(pattern)) is not None:
        end = _group_end(pattern, found.start())
        if end is None:
            return None
        pattern = pattern[: found.start()] + pattern[end:]
    return pattern


def _group_end(pattern: str, start: int) -> int | None:
    """Returns the index after the group that begins at `start`."""
    depth, i, in_class = 0, start, False
    while i < len(pattern):
        c = pattern[i]
        if c == "\\":
            i += 1
        elif in_class:
            in_class = c != "]"
        elif c == "[":
            in_class = True
        elif c == "(":
            depth += 1
        elif c == ")":
            depth -= 1
            if depth == 0:
                return i + 1
        i += 1
    return None
