"""Digests by which files are checked: SHA-256, and git's SHA-1 for the hub's small files, of which
its metadata has no other."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol, Self


class Hasher(Protocol):
    """The part of hashlib's objects that is used here."""

    def update(self, data: bytes | bytearray | memoryview, /) -> None: ...

    def hexdigest(self) -> str: ...


class Digest(StrEnum):
    """A function, and how many hexadecimal digits it has."""

    SHA256 = "sha256"
    GIT = "git-sha1"


_DIGITS = {Digest.SHA256: 64, Digest.GIT: 40}


@dataclass(frozen=True, slots=True)
class Checksum:
    """What the digest of a file has to be."""

    kind: Digest
    hexdigest: str

    def __str__(self) -> str:
        return f"{self.kind}:{self.hexdigest}"

    @classmethod
    def of(cls, kind: Digest, hexdigest: object) -> Self | None:
        """Returns the checksum that a text of the network is, None if it is none."""
        if not isinstance(hexdigest, str):
            return None
        text = hexdigest.lower()
        is_sound = re.fullmatch(r"[0-9a-f]*", text) and len(text) == _DIGITS[kind]
        return cls(kind, text) if is_sound else None


def kind_of(checksum: Checksum | None) -> Digest:
    """Returns what a file is hashed with: one without a checksum gets a SHA-256, under which it is
    known afterwards."""
    return Digest.SHA256 if checksum is None else checksum.kind


def hasher_for(checksum: Checksum | None, n_bytes: int) -> Hasher:
    """Returns an empty hasher for a file of a size."""
    if kind_of(checksum) is Digest.GIT:
        blob = hashlib.sha1(usedforsecurity=False)
        blob.update(b"blob %d\0" % n_bytes)
        return blob
    return hashlib.sha256()
