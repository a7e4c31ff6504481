"""The arguments of a call as an object, for clients that are sent no text."""

from __future__ import annotations

import json

import orjson

from api.body import mended

MOST_INT = 2**63


def arguments_object(arguments: str) -> object:
    """Returns what the text of a call's arguments stands for, in JSON that every client reads: half
    a character becomes U+FFFD, and a number that is too large its text. Empty where the text is no
    JSON. Raises nothing: models write it."""
    data = mended((arguments or "{}").encode(errors="replace"))
    try:
        try:
            return orjson.loads(data)
        except orjson.JSONDecodeError:
            found = json.loads(data, parse_float=_number, parse_int=_integer, parse_constant=str)
            orjson.dumps(found)
            return found
    except (ValueError, TypeError, RecursionError):  # JSONEncodeError is a TypeError
        return {}


def _number(text: str) -> float | str:
    value = float(text)
    return value if abs(value) < float("inf") else text


def _integer(text: str) -> int | str:
    return int(text) if len(text) < 20 and abs(int(text)) < MOST_INT else text
