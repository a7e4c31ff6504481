"""Key pairs of nodes: made at random, and kept in a file that only its owner can read.

A public key is 40 characters (Z85), as in messages and files; so is a secret one, which is never
shown, logged or sent.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from dataclasses import dataclass, field
from pathlib import Path

import zmq

from dllama.errors import ConfigError

KEY_CHARS = 40
KEY_FILE = "node_key"
MAX_KEY_FILE_BYTES = 4096
_HEAD = (
    "# The key pair of this node, made by dllama. Nobody else may read it. Without this file a\n"
    "# new pair is made, and the other nodes have to forget the old one.\n"
)


@dataclass(frozen=True, slots=True)
class KeyPair:
    """A Curve25519 key pair."""

    public: str
    secret: str = field(repr=False)


def new_pair() -> KeyPair:
    """Returns a key pair that nobody has seen."""
    public, secret = zmq.curve_keypair()
    return KeyPair(public.decode(), secret.decode())


def is_key(text: str) -> bool:
    """Returns whether a text can be a public key."""
    return len(text) == KEY_CHARS and text.isascii() and not any(c.isspace() for c in text)


def raw_key(public: str) -> bytes:
    """Returns the 32 bytes of a public key."""
    from zmq.utils import z85

    return bytes(z85.decode(public))


def node_pair(folder: Path) -> KeyPair:
    """Returns the node's own pair, which is made if there is none yet. Raises ConfigError."""
    path = folder / KEY_FILE
    try:
        if not path.exists():
            _write_new(path, new_pair())
        return _read(path)
    except OSError as error:
        raise ConfigError(
            f"cannot keep the key of this node in {path}: {error.strerror or error}. Set "
            "DLLAMA_HOME to a folder that can be read and written, or use --no-encrypt on every "
            "node"
        ) from None


def _read(path: Path) -> KeyPair:
    status = path.stat()
    if os.name == "posix" and status.st_mode & 0o077:
        raise ConfigError(
            f"{path} can be read by other users (mode {status.st_mode & 0o777:o}), and whoever has "
            f"it can pass for this node; chmod 600 it, or delete it for a new one"
        )
    text = path.read_bytes()[:MAX_KEY_FILE_BYTES].decode("ascii", "replace")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    with contextlib.suppress(ValueError, zmq.ZMQError):
        public, secret = lines
        if is_key(public) and is_key(secret):
            derived = zmq.curve_public(secret.encode()).decode()
            if derived == public:
                return KeyPair(public, secret)
    raise ConfigError(
        f"{path} holds no key pair: it is damaged or of something else. Delete it; a new one is "
        "made, and the other nodes have to forget the old one (known_nodes, known_roots)"
    )


def _write_new(path: Path, pair: KeyPair) -> None:
    """Writes the file at once and whole, if no other process was faster. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    write_private(draft, f"{_HEAD}{pair.public}\n{pair.secret}\n")
    try:
        with contextlib.suppress(FileExistsError):
            os.link(draft, path)
    finally:
        draft.unlink()


def write_private(path: Path, text: str) -> None:
    """Writes a new file that only its owner can read. Raises OSError, also where it exists."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(fd, "w", encoding="ascii") as file:
        file.write(text)
        file.flush()
        os.fsync(fd)
