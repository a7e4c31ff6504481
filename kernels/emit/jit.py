"""The decorators that compile: by what the compiler may do to sums, and with names to cache by."""

from __future__ import annotations

import builtins
from collections.abc import Callable
from types import FunctionType
from typing import Any

from numba import njit

from kernels.cache import use_shared_cache

use_shared_cache()  # before any kernel is defined: numba asks for the folder at decoration

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
"""A function that Python calls: without the GIL, and kept on disk. It must close over nothing, see
`kernel_of`."""


def exact_kernel(signature: Any) -> Any:
    """A decorator for a kernel of one signature whose float steps are done as written, none of them
    fused: ranks on different processors must get the same bits."""
    return njit(signature, nogil=True, cache=True)


def named(name: str) -> Callable[[Any], Any]:
    """A decorator that names a function made inside another, before it is compiled.

    Compiled functions find each other by name, also those that came from the cache and were
    compiled in different processes: two with the same name and the same types would be mixed up.
    """

    def rename(function: Any) -> Any:
        function.__name__ = function.__qualname__ = name
        return function

    return rename


_body: Any = None  # a name for _call to compile with; kernel_of puts each kernel's own in its place


def _call(first, second):
    _body(first, second)


def kernel_of(name: str, body: Any) -> Any:
    """The kernel `name`(first, second) of a jitted function body(first, second): one way to make
    the kernels of all weight types.

    numba keys its cache on a function's closure, and a compiled function there has another key in
    each process: a kernel that closed over its body would be compiled anew at every start. So the
    body is a global of the kernel, in a namespace of its own, and the name, which has to be unique,
    tells the cached files apart.
    """
    space = {"__name__": body.py_func.__module__, "__builtins__": builtins, "_body": body}
    return kernel(named(name)(FunctionType(_call.__code__, space)))
