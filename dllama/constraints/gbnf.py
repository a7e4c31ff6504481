"""llama.cpp's grammar notation, GBNF, as Lark."""

from __future__ import annotations

from llguidance.gbnf_to_lark import gbnf_to_lark as convert

from dllama.errors import RequestError


def gbnf_to_lark(source: str) -> str:
    """Raises RequestError where the source is no GBNF."""
    try:
        return str(convert(source))
    except RecursionError:
        reason = "its parentheses are nested too deep"
    except Exception as error:  # the library raises bare Exceptions
        reason = str(error)[:300]
    raise RequestError(f"`grammar` is no GBNF: {reason}.", param="grammar")
