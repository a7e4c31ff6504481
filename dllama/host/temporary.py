"""Folders and files for as long as a process lives, wherever this machine has room for them."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from dllama.errors import ConfigError
from dllama.host.leftovers import RANDOM_PART, HeldFolder, remove_leftovers

MAX_SOCKET_PATH = 103  # bytes of a unix socket's path: 107 on Linux, 103 on macOS and BSD

Made = TypeVar("Made")


def places() -> list[str]:
    """Returns the folders that may take temporary files, the one that the user chose first."""
    chosen = [os.environ.get(name, "") for name in ("TMPDIR", "TEMP", "TMP", "XDG_RUNTIME_DIR")]
    usual = ["/tmp", "/var/tmp", "/dev/shm"] if os.name == "posix" else [tempfile.gettempdir()]
    found = [place for place in chosen if place] + usual
    return list(dict.fromkeys(str(Path(place).absolute()) for place in found))


def socket_folder(prefix: str, socket_name: str) -> HeldFolder:
    """Returns a new folder in which a unix socket of that name can be opened; it is removed when it
    is closed. Raises ConfigError where there is no place for one."""
    room = MAX_SOCKET_PATH - len(prefix) - RANDOM_PART - len(socket_name) - 2
    short = [place for place in places() if len(os.fsencode(place)) <= room]
    return _first_that_works(short, lambda place: _folder(prefix, place))


def temporary_folder(prefix: str) -> HeldFolder:
    """Returns a new folder, which is removed when it is closed. Raises ConfigError where there is
    no place for one."""
    return _first_that_works(places(), lambda place: _folder(prefix, place))


def temporary_file(prefix: str, content: bytes) -> Path:
    """Writes a new file and returns its path; the caller removes it. Raises ConfigError where there
    is no place for it."""

    def write(place: str) -> Path:
        with tempfile.NamedTemporaryFile(prefix=prefix, dir=place, delete=False) as file:
            try:
                file.write(content)
                file.flush()
            except OSError:
                Path(file.name).unlink()
                raise
            return Path(file.name)

    return _first_that_works(places(), write)


def _folder(prefix: str, place: str) -> HeldFolder:
    folder = HeldFolder(prefix, place)
    remove_leftovers(prefix, place)
    return folder


def _first_that_works(tried: Sequence[str], make: Callable[[str], Made]) -> Made:
    causes = []
    for place in tried:
        try:
            return make(place)
        except OSError as error:
            causes.append(f"{place} ({error.strerror or error})")
    raise ConfigError(
        f"there is no folder for temporary files: {', '.join(causes) or 'all paths are too long'}; "
        "name one that can be written and has a short path in TMPDIR"
    )
