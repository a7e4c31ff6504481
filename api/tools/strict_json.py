"""JSON as models write it, where Python's own reader takes what is none."""

from __future__ import annotations

import json
from typing import NoReturn


def strict_json(text: str) -> object:
    """Returns the value of a JSON text. Raises ValueError where it is none, NaN and Infinity among
    that, and RecursionError where it is too deep."""
    return json.loads(text, parse_constant=_refuse)


def _refuse(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON.")
