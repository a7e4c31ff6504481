"""A rank's KV pages in a file of its own: written whole, checked whole before they are used.

Layout, little-endian: HEADER, then per layer the keys of all pages and the values of all pages,
likewise of layers with a window, then the sequence's states in models some of whose layers keep
them, then a BLAKE2b digest of everything before it.
"""

from __future__ import annotations

import hashlib
import math
import os
import struct
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import numpy as np

from dllama.errors import SessionFileError
from dllama.weight_source import WeightSource
from kernels.attention.kv_pages import KvPages

_SAMPLED_ROWS = 4


def model_fingerprint(source: WeightSource, cut: str) -> bytes:
    """Returns 32 bytes that depend on the model's config, on its tensors' shapes and types, on the
    first rows of each, and on how it is cut over ranks (`cut` in words of the caller)."""
    digest = hashlib.blake2b(f"{source.config!r}|{cut}".encode(), digest_size=32)
    for name in sorted(source.tensors):
        info = source.tensors[name]
        digest.update(f"{name} {info.qtype!r} {info.rows} {info.cols}|".encode())
        n_rows = min(_SAMPLED_ROWS, info.rows // info.n_experts)
        digest.update(source.read(name, range(n_rows)).tobytes())
    return digest.digest()


MAGIC = b"dllamaKV"
VERSION = 3
MARK_BYTES = 32  # says whose pages these are: model, cut, rank and save
_HEADER = struct.Struct(f"<8sI8I{MARK_BYTES}s")
# magic, version, of both kinds of layers their number, pages, key and value bytes of a page; mark
_DIGEST_BYTES = 32


class FilePart(NamedTuple):
    """Some pages of layers of one kind."""

    kv: KvPages
    pages: Sequence[int]

    @property
    def head(self) -> tuple[int, int, int, int]:
        """The layers, the pages, the bytes of a page's keys and those of its values."""
        n_layers, n_pages = self.kv.keys.shape[0], len(self.pages)
        keys, values = (array.itemsize * math.prod(array.shape[2:]) for array in self.kv)
        return n_layers, n_pages, keys, values

    @property
    def n_bytes(self) -> int:
        n_layers, n_pages, keys, values = self.head
        return n_layers * n_pages * (keys + values)

    def pieces(self) -> Iterator[np.ndarray]:
        """Yields views of the pages, a page of a layer each, in the order of the file."""
        for layer in range(self.kv.keys.shape[0]):
            for array in self.kv:
                for page in self.pages:
                    yield array[layer, page]


Tick = Callable[[], None]
"""Called between two pieces of work, for watchdogs."""


def file_name(name: str, fingerprint: bytes, rank: int) -> str:
    """Returns the name of a rank's file: saves of several models and clusters share a directory."""
    return f"{name}-{fingerprint[:6].hex()}.rank{rank}.kv"


def mark_of(fingerprint: bytes, stamp: bytes, rank: int) -> bytes:
    """Returns the mark of one rank's file of one save."""
    return hashlib.blake2b(fingerprint + stamp + bytes([rank]), digest_size=MARK_BYTES).digest()


def write_pages(
    path: Path, parts: Sequence[FilePart], mark: bytes, tick: Tick,
    states: Sequence[np.ndarray] = (),
) -> int:  # fmt: skip
    """Writes the pages of both kinds of layers, and after them `states`, and returns the bytes of
    the file, which is there whole or not at all. Raises SessionFileError."""
    header = _header(parts, mark)
    digest = hashlib.blake2b(header, digest_size=_DIGEST_BYTES)
    unfinished = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with unfinished.open("wb") as file:
            file.write(header)
            for piece in (*_pieces(parts), *states):
                data = np.ascontiguousarray(piece).tobytes()
                digest.update(data)
                file.write(data)
                tick()
            file.write(digest.digest())
            n_bytes = file.tell()
        unfinished.replace(path)
    except OSError as error:
        unfinished.unlink(missing_ok=True)
        raise SessionFileError(
            f"the keys and values of a session cannot be written to {path}: {error.strerror}"
        ) from error
    return n_bytes


def read_pages(
    path: Path, parts: Sequence[FilePart], mark: bytes, tick: Tick,
    states: Sequence[np.ndarray] = (),
) -> int:  # fmt: skip
    """Reads what write_pages wrote into these pages and arrays, in their order; the bytes of the
    file. Raises SessionFileError where it is not the same model's, cut's, rank's and save's, or is
    damaged: the contents of pages and arrays are then undefined."""
    header = _header(parts, mark)
    n_data = sum(part.n_bytes for part in parts) + sum(a.nbytes for a in states)
    n_wanted = len(header) + n_data + _DIGEST_BYTES
    try:
        with path.open("rb") as file:
            n_bytes = os.fstat(file.fileno()).st_size
            found = file.read(len(header))
            if found != header:
                raise SessionFileError(f"{path} {_difference(found, header)}; save it anew")
            if n_bytes != n_wanted:
                raise SessionFileError(
                    f"{path} has {n_bytes} bytes, and {n_wanted} are expected: it was cut short, "
                    "save it anew"
                )
            digest = hashlib.blake2b(header, digest_size=_DIGEST_BYTES)
            for piece in (*_pieces(parts), *states):
                data = file.read(piece.nbytes)
                digest.update(data)
                piece[:] = np.frombuffer(data, piece.dtype).reshape(piece.shape)
                tick()
            if file.read(_DIGEST_BYTES) != digest.digest():
                raise SessionFileError(f"{path} is damaged: its checksum is wrong; save it anew")
    except OSError as error:
        raise SessionFileError(
            f"the keys and values of a session cannot be read from {path}: {error.strerror}"
        ) from error
    return n_bytes


def _pieces(parts: Sequence[FilePart]) -> Iterator[np.ndarray]:
    return chain.from_iterable(part.pieces() for part in parts)


def _header(parts: Sequence[FilePart], mark: bytes) -> bytes:
    assert len(mark) == MARK_BYTES
    return _HEADER.pack(MAGIC, VERSION, *chain.from_iterable(part.head for part in parts), mark)


def _difference(found: bytes, wanted: bytes) -> str:
    if len(found) < len(wanted) or found[:8] != MAGIC:
        return "holds no keys and values of a session"
    if found[8:12] != wanted[8:12]:
        return f"is of another version of the format; this one is {VERSION}"
    return (
        "belongs to another model, another cut of it over machines, another --kv-type, or another "
        "save"
    )
