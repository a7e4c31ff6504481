"""Tells when a kernel is being compiled, so that a first start can say what takes its time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from numba.core import event


class _Listener(event.Listener):
    def __init__(self, callback: Callable[[str], None]) -> None:
        self._callback, self._depth = callback, 0

    def on_start(self, e: Any) -> None:
        # Compiling a kernel compiles what it calls: only the outermost one is news.
        if self._depth == 0:
            function = e.data["dispatcher"].py_func
            self._callback(f"{function.__module__.removeprefix('kernels.')}.{function.__name__}")
        self._depth += 1

    def on_end(self, e: Any) -> None:
        self._depth -= 1


@contextmanager
def on_compile(callback: Callable[[str], None]) -> Iterator[None]:
    """Calls `callback` with the name of each kernel that is compiled, and not found in the cache,
    while the context lasts."""
    listener = _Listener(callback)
    event.register("numba:compile", listener)
    try:
        yield
    finally:
        event.unregister("numba:compile", listener)
