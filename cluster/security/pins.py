"""Pins: the keys that other nodes had at first sight, a line each in a file, as in ssh's
known_hosts. A node with another key than before is refused until its line is removed."""

from __future__ import annotations

import contextlib
import errno
import os
import shlex
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from cluster.security.keys import is_key
from dllama.errors import ConfigError

MAX_PINS = 4096  # more are not written: strangers must not fill a disk
MAX_FILE_BYTES = MAX_PINS * 400
_HEAD = "# Keys of {whom} at first sight. Remove a line to trust a new key at its address.\n"


class Pin(NamedTuple):
    """The key of one address, and the number of its line."""

    key: str
    line: int


class Pins:
    """The pins of one file, which other processes may write too: it is read at every question."""

    def __init__(self, path: Path, whom: str) -> None:
        self.path = path
        self._whom = whom

    def of(self, address: str) -> Pin | None:
        """Returns the first pin of an address. Raises ConfigError."""
        return self._read().get(address)

    def complaint(self, address: str, key: str) -> str:
        """Returns why a key is not to be trusted at an address; "" where it is, or is new."""
        pin = self.of(address)
        if pin is None or pin.key == key:
            return ""
        return (
            f"{address} had another key when it was first seen: either that machine was set up "
            "anew, or another one answers in its place and reads what is sent. The earlier key is "
            f"kept on {socket.gethostname()}; if you know why it changed, remove line {pin.line} "
            f"of {self.path} there: sed -i {pin.line}d {shlex.quote(str(self.path))}"
        )

    def add(self, address: str, key: str) -> bool:
        """Pins a key to an address that has none yet; returns whether it is one now.

        Raises ConfigError where the file cannot be written.
        """
        pins = self._read()
        if address in pins or len(pins) >= MAX_PINS:
            return address in pins
        head = "" if self.path.exists() else _HEAD.format(whom=self._whom)
        line = f"{head}{address} {key}\n".encode()
        with self._explained():
            self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            fd = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
            try:
                size = os.fstat(fd).st_size
                if os.write(fd, line) < len(line):  # at once: another process may write too
                    os.ftruncate(fd, size)  # half a line would make the file unreadable
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            finally:
                os.close(fd)
        return True

    def _read(self) -> dict[str, Pin]:
        with self._explained():
            try:
                with self.path.open("rb") as file:
                    text = file.read(MAX_FILE_BYTES).decode("ascii", "replace")
            except FileNotFoundError:
                return {}
        pins: dict[str, Pin] = {}
        for number, line in enumerate(text.splitlines(), start=1):
            words = line.split()
            if not words or line.startswith("#"):
                continue
            if len(words) != 2 or not is_key(words[1]):
                raise ConfigError(
                    f"line {number} of {self.path} is no address and key; remove it, or the file"
                )
            pins.setdefault(words[0], Pin(words[1], number))
        return pins

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise ConfigError(
                f"the keys of known nodes in {self.path} cannot be read and written: "
                f"{error.strerror or error}. Set DLLAMA_HOME to a folder that can be"
            ) from None
