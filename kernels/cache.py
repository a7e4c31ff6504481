"""Compiled kernels on disk: one folder for each state of the kernels' source, and a report of each
kernel that is not there yet."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import llvmlite
import numba
from numba.core import config, event

from kernels.cpu import isa


def cache_root() -> Path:
    """The folder for compiled kernels: $DLLAMA_CACHE, else the user's cache folder."""
    if chosen := os.environ.get("DLLAMA_CACHE"):
        return Path(chosen) / "kernels"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "dllama" / "kernels"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", Path.home())) / "dllama" / "kernels"
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "dllama" / "kernels"


def source_key() -> str:
    """A hash that changes whenever a compiled kernel could. numba itself only watches the one file
    that holds a function, not the intrinsics it is made of."""
    key = hashlib.sha256()
    for file in sorted(Path(__file__).parent.rglob("*.py")):
        key.update(file.read_bytes())
    for fact in (numba.__version__, llvmlite.__version__, sys.version, isa()):
        key.update(fact.encode())
    return key.hexdigest()[:16]


def use_shared_cache() -> None:
    """Points numba's on-disk cache at a folder shared by all processes of this user."""
    if os.environ.get("NUMBA_CACHE_DIR"):
        return
    folder = cache_root() / source_key()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return  # numba falls back to its own choice, or compiles anew
    config.CACHE_DIR = str(folder)


class _Listener(event.Listener):
    def __init__(self, callback: Callable[[str], None]) -> None:
        self._callback, self._depth = callback, 0

    def on_start(self, e: Any) -> None:
        # Compiling a kernel compiles what it calls: only the outermost one is reported.
        if self._depth == 0:
            function = e.data["dispatcher"].py_func
            self._callback(f"{function.__module__.removeprefix('kernels.')}.{function.__name__}")
        self._depth += 1

    def on_end(self, e: Any) -> None:
        self._depth -= 1


@contextmanager
def on_compile(callback: Callable[[str], None]) -> Iterator[None]:
    """Calls `callback` with the name of each kernel that is compiled instead of loaded from the
    cache, while the context lasts."""
    listener = _Listener(callback)
    event.register("numba:compile", listener)
    try:
        yield
    finally:
        event.unregister("numba:compile", listener)
