"""How functions are compiled: three kinds, by what the compiler may do to their sums."""

from __future__ import annotations

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

kernel: Any = njit(nogil=True, cache=True, **MATH)
"""What Python calls: without the GIL, and kept on disk. It must close over nothing, or numba keeps
it out of the cache."""
