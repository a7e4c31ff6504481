"""Compiled kernels on disk: a folder for each state of the kernels' source, a file for each kernel
and the kinds of its arguments.

A file that cannot be read, is cut short or was damaged counts as absent; a folder that cannot be
written means that every start compiles anew. Both are told once.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import logging
import os
import struct
import sys
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import NamedTuple

import llvmlite
import llvmlite.binding as llvm

from kernels.cpu import feature_flags, isa
from kernels.turns import turn
from kernels.whole_files import write_whole

log = logging.getLogger(__name__)

MAGIC = b"dllama kernel 2\n"
MAX_WAIT_S = 60.0  # for a process that compiles the same kernel: that takes seconds
_DIGEST_BYTES = 32
_HEAD = struct.Struct("<B")  # has_result


class Code(NamedTuple):
    """A kernel as an object file, with the function that hands it its arguments."""

    object_code: bytes
    has_result: bool


def cache_root() -> Path | None:
    """The folder for compiled kernels: $DLLAMA_CACHE, else the user's cache folder; None where the
    user has no home."""
    if chosen := os.environ.get("DLLAMA_CACHE"):
        return Path(chosen) / "kernels"
    xdg = Path(os.environ.get("XDG_CACHE_HOME", ""))
    if xdg.is_absolute():  # the specification says to ignore others
        return xdg / "dllama" / "kernels"
    try:
        home = Path.home()
    except RuntimeError:
        return None
    if sys.platform == "darwin":
        return home / "Library" / "Caches" / "dllama" / "kernels"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", home)) / "dllama" / "kernels"
    return home / ".cache" / "dllama" / "kernels"


@functools.cache
def source_key() -> str:
    """A hash that changes whenever a compiled kernel could."""
    key = hashlib.sha256()
    for file in sorted(Path(__file__).parent.rglob("*.py")):
        key.update(file.read_bytes())
    facts = (_numba_version(), llvmlite.__version__, sys.version, isa(), llvm.get_host_cpu_name(),
             feature_flags())  # fmt: skip
    for fact in facts:
        key.update(fact.encode())
    return key.hexdigest()[:16]


def _numba_version() -> str:
    """What tells numba's versions apart, without importing numba."""
    found = importlib.util.find_spec("numba")
    if found is None or found.origin is None:
        return ""
    return Path(found.origin).with_name("_version.py").read_text()


def folder() -> Path | None:
    """The folder of the kernels of this source on this processor."""
    root = cache_root()
    return None if root is None else root / source_key()


def _file(name: str, kinds: tuple[object, ...]) -> Path | None:
    where = folder()
    key = hashlib.sha256(repr(kinds).encode()).hexdigest()[:16]
    return None if where is None else where / f"{name}.{key}"


def read(name: str, kinds: tuple[object, ...]) -> Code | None:
    """The code of a kernel for arguments of these kinds; None if it is not there whole."""
    file = _file(name, kinds)
    if file is None:
        return None
    try:
        data = file.read_bytes()
    except OSError:
        return None
    code = _decoded(data)
    if code is None:
        _tell(
            f"The compiled kernel {file} is damaged and is compiled anew; nothing else is needed."
        )
    return code


def _decoded(data: bytes) -> Code | None:
    start = len(MAGIC) + _DIGEST_BYTES
    body = data[start:]
    is_whole = data.startswith(MAGIC) and len(body) >= _HEAD.size
    if not is_whole or hashlib.sha256(body).digest() != data[len(MAGIC) : start]:
        return None
    (has_result,) = _HEAD.unpack_from(body)
    return Code(body[_HEAD.size :], bool(has_result))


def turn_to_compile(name: str, kinds: tuple[object, ...]) -> AbstractContextManager[None]:
    """A context in which no other process compiles this kernel, unless it takes very long."""
    file = _file(name, kinds)
    return nullcontext() if file is None else turn(file, MAX_WAIT_S)


def write(name: str, kinds: tuple[object, ...], code: Code) -> None:
    """Keeps the code for the next start, where the disk allows it."""
    file = _file(name, kinds)
    if file is None:
        _tell(
            "Compiled kernels are not kept, as this user has no home: every start compiles them "
            "anew, which takes half a minute or more; set DLLAMA_CACHE to a folder that can be "
            "written."
        )
        return
    body = _HEAD.pack(code.has_result) + code.object_code
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_whole(file, MAGIC + hashlib.sha256(body).digest() + body)
    except OSError as error:
        _tell(
            f"Compiled kernels are not kept ({error.strerror or error}: {file.parent}): every "
            "start compiles them anew, which takes half a minute or more; set DLLAMA_CACHE to a "
            "folder that can be written."
        )


@functools.cache
def _tell(message: str) -> None:
    if _tell.cache_info().currsize == 0:  # what holds for one file holds for the others
        log.warning("%s", message)
