"""Limits on the memory and time that a chat template can use: it is code that came with a model,
and a few letters of Jinja suffice to fill a machine's memory. Each check raises jinja2's
SecurityError."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from jinja2.exceptions import SecurityError

MAX_CHARS = 16 << 20  # of one value, and of the prompt; the longest contexts take a quarter of it
MAX_TURNS = 200_000  # of all loops and macros of a rendering: about a second
_MAX_POWER = 64
_SIZED = (str, list, tuple)
_WIDE_FIELD = re.compile(r"[%:][^%{}]*\d{7}")  # "%9999999d", "{:>9999999}"


class TurnCounter:
    """Counts the turns of all loops and macros of one rendering."""

    def __init__(self) -> None:
        self._left = MAX_TURNS

    def count(self) -> str:
        self._left -= 1
        if self._left < 0:
            raise SecurityError(f"its loops take more than {MAX_TURNS} turns")
        return ""


def join_limited(parts: Iterable[str]) -> str:
    """The parts as one text."""
    kept: list[str] = []
    n_chars = 0
    for part in parts:
        n_chars += len(part)
        if n_chars > MAX_CHARS:
            raise SecurityError(f"its text grows beyond {MAX_CHARS} characters")
        kept.append(part)
    return "".join(kept)


def check_operands(operator: str, left: Any, right: Any) -> None:
    """Refuses `+`, `*`, `**` and `%` where the result would be huge."""
    if operator == "**" and isinstance(right, int | float) and abs(right) > _MAX_POWER:
        raise SecurityError(f"the power {right} is too large")
    if operator == "%" and isinstance(left, str):
        check_text_call(left, "format", ())
    if operator == "+" and isinstance(left, _SIZED) and isinstance(right, _SIZED):
        _check_length(len(left) + len(right))
    if operator == "*":
        for items, times in ((left, right), (right, left)):
            if isinstance(items, _SIZED) and isinstance(times, int):
                _check_length(len(items) * times)


def check_text_call(text: str, method: str, args: Sequence[object]) -> None:
    """Refuses methods and filters of texts that would make a huge one."""
    for arg in args:
        if isinstance(arg, int):
            _check_length(arg)
    if method == "replace" and len(args) > 1:
        old, new = str(args[0]), str(args[1])
        _check_length(len(text) + text.count(old) * len(new))
    if method in ("format", "format_map") and _WIDE_FIELD.search(text):
        raise SecurityError("a format asks for a field of millions of characters")


def limited_filter(name: str, unlimited: Callable[..., Any]) -> Callable[..., Any]:
    """A filter of texts that is checked before it runs."""

    def limited(text: object, *args: object, **kwargs: object) -> Any:
        check_text_call(str(text), name, [*args, *kwargs.values()])
        return unlimited(text, *args, **kwargs)

    return limited


def replace_filter(text: object, old: object, new: object, count: int | None = None) -> str:
    """jinja2's `replace`, checked."""
    check_text_call(str(text), "replace", [old, new])
    return str(text).replace(str(old), str(new), -1 if count is None else count)


def _check_length(n: int) -> None:
    if n > MAX_CHARS:
        raise SecurityError(f"a value grows beyond {MAX_CHARS} items")
