"""How functions are compiled: three kinds, by what the compiler may do to their sums."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numba import njit

MATH: dict[str, Any] = {"error_model": "numpy", "fastmath": {"contract", "nsz", "arcp"}}
FAST: dict[str, Any] = {"error_model": "numpy", "fastmath": True}

jitted: Any = njit(**MATH)
"""A piece of a kernel: multiplications and additions may fuse, sums keep their order."""

reordered: Any = njit(**FAST)
"""A loop whose sum may be added in another order. One compiled loop serves every row, so that a
row's result still does not depend on its batch."""

inlined: Any = njit(inline="always")
"""Compiled as a part of its caller, under its caller's rules."""


def named(name: str) -> Callable[[Any], Any]:
    """Gives a function that is made inside another a name of its own, before it is compiled.

    Compiled functions find each other by name, also those that came from the cache and were
    compiled in different processes: two with one name and equal types would be taken for the same.
    """

    def rename(function: Any) -> Any:
        function.__name__ = function.__qualname__ = name
        return function

    return rename


kernel: Any = njit(nogil=True, cache=True, **MATH)
"""What Python calls: without the GIL, and kept on disk. It must close over nothing, or numba keeps
it out of the cache."""
