"""Where compiled kernels are kept: one folder for each state of the kernels' source."""

from __future__ import annotations

import hashlib
import os
import sys
from pathlib import Path

import llvmlite
import numba
from numba.core import config

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
    """Changes whenever a compiled kernel could: numba itself only watches the one file that
    holds a function, not the intrinsics it is made of."""
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
