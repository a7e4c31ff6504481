"""A file mapped into memory, read-only. Knows ranges of bytes; nothing of models."""

from __future__ import annotations

import mmap
import os
from pathlib import Path

import numpy as np

from dllama.errors import ModelFileError

_PAGE = mmap.PAGESIZE


class MappedFile:
    """A whole file as bytes that cost no memory until they are read.

    Every range is checked against the size before it is used, so a corrupt length can neither
    allocate nor crash. Raises ModelFileError where the path is no readable, non-empty file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.buffer, self.stamp = _map(path)
        self.size = len(self.buffer)
        self._bytes = np.frombuffer(self.buffer, np.uint8)

    def view(self, offset: int, n_bytes: int, what: str) -> np.ndarray:
        """Returns the bytes [offset, offset + n_bytes) as uint8 (n_bytes,), a view; `what` names
        them in errors."""
        if offset < 0 or n_bytes < 0 or offset + n_bytes > self.size:
            raise ModelFileError(
                f"{self.path}: {what} needs the bytes {offset} to {offset + n_bytes}, but the file "
                f"ends at {self.size}. It is truncated or corrupt; download or write it again."
            )
        if not len(self._bytes):
            raise ModelFileError(f"{self.path} was closed; open it again to read {what}.")
        return self._bytes[offset : offset + n_bytes]

    def release(self, offset: int, n_bytes: int) -> None:
        """Gives back the pages that lie wholly inside the range; they can be read again."""
        start = -(-offset // _PAGE) * _PAGE
        end = (offset + n_bytes) // _PAGE * _PAGE
        if offset + n_bytes >= self.size:
            end = self.size  # the last page holds nothing else
        if end > start and len(self._bytes) and hasattr(mmap, "MADV_DONTNEED"):
            self.buffer.madvise(mmap.MADV_DONTNEED, start, end - start)

    def close(self) -> None:
        """Ends the mapping; where views are still in use, it ends with the last of them."""
        self._bytes = np.empty(0, np.uint8)
        try:
            self.buffer.close()
        except BufferError:
            return  # a caller still holds a view, and the map must outlive it


def _map(path: Path) -> tuple[mmap.mmap, str]:
    """Returns the mapped file and a text that changes whenever the file does."""
    try:
        with open(path, "rb", opener=_at_once) as file:
            if not path.is_file():
                raise ModelFileError(f"{path} is not a regular file; name a model file on disk.")
            if path.stat().st_size == 0:
                raise ModelFileError(f"{path} is empty; download or write it again.")
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), _stamp(path, file.fileno())
    except FileNotFoundError:
        raise ModelFileError(
            f"There is no file at {path}; check the spelling, or download the model first."
        ) from None
    except IsADirectoryError:
        raise ModelFileError(_directory_sentence(path)) from None
    except OSError as error:
        raise ModelFileError(
            f"{path} cannot be read ({error.strerror or error}); check its permissions "
            f"and the disk."
        ) from error


def _at_once(path: str, flags: int) -> int:
    """Opens a file; a pipe is not waited for whose other end nobody has opened."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def _stamp(path: Path, descriptor: int) -> str:
    """The time of the last change of the inode is among it, which nobody can set back."""
    found = os.fstat(descriptor)
    facts = (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
    return f"{path.resolve()} {facts}"


FOREIGN_FOLDERS: dict[str, str] = {
    "model_index.json": "a model of diffusers, which makes pictures or films; use a language model",
    "adapter_config.json": "a LoRA adapter, and not a model; merge it into its model",
}
"""What a folder without config.json is, by a file in it."""


def _directory_sentence(path: Path) -> str:
    for name, what in FOREIGN_FOLDERS.items():
        if (path / name).is_file():
            return f"{path} is {what}."
    found = sorted(p.name for suffix in ("*.gguf", "*.m") for p in path.glob(suffix))
    hint = f", for example {found[0]}" if found else " (there are none of .gguf or .m in it)"
    return (
        f"{path} is a directory without a config.json, not a model; name a model file in it{hint}."
    )
