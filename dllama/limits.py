"""Limits that a field of a message carries in its type: `Annotated[int, Range(0, 9)]`.

The dataclasses that cross a process or a machine say here what a receiver may accept;
cluster/wire/codec.py checks it. Nothing is checked when a dataclass is built in a program. Limits
of arrays are in dllama/array_limits.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

MAX_TEXT_CHARS = 1 << 20  # of a text without a limit of its own
MAX_ENTRIES = 1 << 20  # of a list or map without a limit of its own: no vocabulary is that large
MAX_TREE_DEPTH = 8  # of plain values, which are fields of the type `object`


@dataclass(frozen=True, slots=True)
class Range:
    """An integer from `low` to `high`, both allowed."""

    low: int
    high: int


@dataclass(frozen=True, slots=True)
class MaxLength:
    """At most `n` characters, entries or bytes."""

    n: int


@dataclass(frozen=True, slots=True)
class MultipleOf:
    """Bytes whose number is a multiple of `n`."""

    n: int


Token = Annotated[int, Range(0, (1 << 31) - 1)]
Id = Annotated[str, MaxLength(256)]
Tokens = Annotated[list[Token], MaxLength(MAX_ENTRIES)]
Prompt = Annotated[list[Token], MaxLength(1 << 22)]  # no context is that long
Count = Annotated[int, Range(0, (1 << 63) - 1)]
