"""The root's file of a saved session: the tokens whose keys and values the ranks' files hold.

Layout, little-endian: HEADER, the token ids as int32, then a BLAKE2b digest of everything before.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dllama.errors import RequestError, SessionFileError

MAGIC = b"dllamaSE"
VERSION = 1
STAMP_BYTES = 16  # new for each save, so that the files of two saves are never mixed
FINGERPRINT_BYTES = 32
MAX_TOKENS = 1 << 24  # no context is that long
_HEADER = struct.Struct(f"<8sII{FINGERPRINT_BYTES}s{STAMP_BYTES}s")
_DIGEST_BYTES = 32
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")


@dataclass(frozen=True, slots=True)
class SavedSession:
    """The tokens whose keys and values were saved, and the stamp of the ranks' files."""

    tokens: list[int]
    stamp: bytes


def new_stamp() -> bytes:
    """A random stamp for one save."""
    return secrets.token_bytes(STAMP_BYTES)


def checked_name(filename: str) -> str:
    """The name, if it cannot lead out of its directory on any system. Raises RequestError."""
    if not _NAME.fullmatch(filename):
        raise RequestError(
            f"the file name {filename!r:.60} is not allowed; use 1 to 128 letters, digits, dots, "
            "dashes and underscores, the first of them no dot or dash",
            param="filename",
        )
    return filename


def write_session(path: Path, session: SavedSession, fingerprint: bytes) -> int:
    """Writes the file, whole or not at all, and returns its bytes. Raises SessionFileError."""
    data = _HEADER.pack(MAGIC, VERSION, len(session.tokens), fingerprint, session.stamp)
    data += np.array(session.tokens, "<i4").tobytes()
    data += hashlib.blake2b(data, digest_size=_DIGEST_BYTES).digest()
    unfinished = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished.write_bytes(data)
        unfinished.replace(path)
    except OSError as error:
        unfinished.unlink(missing_ok=True)
        raise SessionFileError(
            f"the session cannot be written to {path}: {error.strerror}"
        ) from error
    return len(data)


def read_session(path: Path, fingerprint: bytes, vocab_size: int) -> SavedSession:
    """Reads the file. Raises SessionFileError if it is missing, damaged or of another model."""
    n_most = _HEADER.size + 4 * MAX_TOKENS + _DIGEST_BYTES
    try:
        with path.open("rb") as file:
            data = file.read(n_most + 1)
    except OSError as error:
        raise SessionFileError(
            f"there is no saved session that can be read at {path}: {error.strerror}"
        ) from error
    if len(data) < _HEADER.size + _DIGEST_BYTES or not data.startswith(MAGIC):
        raise SessionFileError(f"{path} is no saved session of dllama")
    _, version, n_tokens, theirs, stamp = _HEADER.unpack_from(data)
    if version != VERSION:
        raise SessionFileError(f"{path} is of version {version}; this dllama reads {VERSION}")
    body, digest = data[:-_DIGEST_BYTES], data[-_DIGEST_BYTES:]
    is_whole = len(body) == _HEADER.size + 4 * n_tokens and n_tokens > 0
    if not is_whole or hashlib.blake2b(body, digest_size=_DIGEST_BYTES).digest() != digest:
        raise SessionFileError(f"{path} is damaged: its size or checksum is wrong; save it anew")
    if theirs != fingerprint:
        raise SessionFileError(
            f"{path} was saved by another model, or by one that was cut over other machines"
        )
    tokens = np.frombuffer(body, "<i4", n_tokens, _HEADER.size)
    if tokens.min() < 0 or tokens.max() >= vocab_size:
        raise SessionFileError(f"{path} names tokens that this model does not have")
    return SavedSession(tokens.tolist(), stamp)
