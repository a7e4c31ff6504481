"""The cluster key: what all nodes of a cluster know, and nobody else.

It is 32 random bytes, written as `dlk1` and 56 letters and digits, which hold a checksum too. It
proves who belongs to a cluster and encrypts nothing. It is never logged, shown or sent.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import logging
import os
import secrets
import shlex
from collections.abc import Sequence
from pathlib import Path

from dllama.errors import ConfigError

log = logging.getLogger(__name__)

PREFIX = "dlk1"
KEY_BYTES = 32
_CHECK_BYTES = 3  # 35 bytes are 56 characters of base 32
_TEXT_CHARS = len(PREFIX) + (KEY_BYTES + _CHECK_BYTES) * 8 // 5
MAX_FILE_BYTES = 4096


class ClusterKey:
    """A cluster key, which shows itself to nobody: `text()` alone gives it away."""

    __slots__ = ("_raw",)

    def __init__(self, raw: bytes) -> None:
        assert len(raw) == KEY_BYTES, "parse_cluster_key checks what users write"
        self._raw = raw

    def text(self) -> str:
        """Returns the form that people keep."""
        packed = base64.b32encode(self._raw + _check(self._raw)).decode().lower()
        return PREFIX + packed

    def proof(self, side: str, facts: Sequence[str]) -> str:
        """Returns what only a holder of the key can say of these facts, in hexadecimal.

        `side` tells the two ends apart: nobody can send back what it was sent.
        """
        mac = hmac.new(self._raw, digestmod=hashlib.sha256)
        for fact in ("dllama cluster key 1", side, *facts):
            encoded = fact.encode()
            mac.update(len(encoded).to_bytes(4, "little") + encoded)
        return mac.hexdigest()

    def is_proof(self, proof: str, side: str, facts: Sequence[str]) -> bool:
        """Returns whether another holder of the key said this."""
        return hmac.compare_digest(proof.encode(), self.proof(side, facts).encode())

    def __repr__(self) -> str:
        return "ClusterKey(...)"


def new_cluster_key() -> ClusterKey:
    """Returns a key that nobody has seen."""
    return ClusterKey(secrets.token_bytes(KEY_BYTES))


def parse_cluster_key(text: str) -> ClusterKey:
    """Returns the key of a `KEY` or `@FILE`, and warns of a file that others can read. Raises
    ConfigError, which does not repeat the key."""
    if text.startswith("@"):
        path = Path(text[1:]).expanduser()
        try:
            with path.open("rb") as file:
                found = file.read(MAX_FILE_BYTES).decode("ascii", "replace")
                mode = os.fstat(file.fileno()).st_mode
        except OSError as error:
            raise ConfigError(
                f"the cluster key cannot be read from {path}: {error.strerror or error}"
            ) from None
        key = _parse(found, f"the cluster key in {path}")
        _warn_if_shared(path, mode)
        return key
    return _parse(text, "the cluster key (a file is written @FILE)")


def _warn_if_shared(path: Path, mode: int) -> None:
    """Warns where other users can read or replace the key. It is used all the same: some systems
    hand out secrets in files of that kind."""
    if os.name == "posix" and mode & 0o077:
        log.warning(
            "the cluster key in %s is open to other users of this machine (mode %04o), and whoever "
            "has it can join the cluster; run: chmod 600 %s",
            path,
            mode & 0o7777,
            shlex.quote(str(path)),
        )


def _parse(text: str, subject: str) -> ClusterKey:
    word = text.strip().lower()
    if len(word) == _TEXT_CHARS and word.startswith(PREFIX):
        try:
            packed = base64.b32decode(word[len(PREFIX) :].upper())
        except (binascii.Error, ValueError):
            packed = b""
        raw = packed[:KEY_BYTES]
        if packed and packed[KEY_BYTES:] == _check(raw):
            return ClusterKey(raw)
        raise ConfigError(
            f"{subject} is none that `dllama key` made: a character of it was changed; copy it "
            "again"
        )
    raise ConfigError(
        f"{subject} has {len(word)} characters; expected {_TEXT_CHARS}, as `dllama key` makes, "
        f"which begin with {PREFIX}"
    )


def _check(raw: bytes) -> bytes:
    return hashlib.sha256(b"dllama cluster key" + raw).digest()[:_CHECK_BYTES]
