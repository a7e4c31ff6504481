"""Files written front to back, tensor by tensor, without holding one whole. They appear under their
name only when complete, so half a model is never seen."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

from dllama.weight_source import TensorInfo


class StreamedFile:
    """A head, then the announced tensors in order; each padded to `alignment`.

    Use as a context manager: leaving it normally checks that all was written and gives the file
    its name; leaving it by an exception removes what was written.
    """

    def __init__(
        self, path: Path, head: bytes, tensors: Sequence[TensorInfo], alignment: int = 1
    ) -> None:
        self._path = path
        self._partial = path.with_name(path.name + ".partial")
        self._head = head
        self._tensors = list(tensors)
        self._alignment = alignment
        self._current = 0
        self._written = 0  # bytes of the current tensor

    def __enter__(self) -> Self:
        self._file = self._partial.open("wb")
        try:
            self._file.write(self._head)
        except BaseException:
            self._discard()
            raise
        return self

    def write(self, raw: np.ndarray) -> None:
        """The next blocks of the next tensor, uint8 of any shape; a tensor may come in pieces,
        but a piece never spans two. Raises ValueError where it would."""
        while self._current < len(self._tensors) and self._left() == 0:
            self._next()
        if self._current == len(self._tensors) or raw.nbytes > self._left():
            raise ValueError(f"{raw.nbytes} bytes are more than {self._waiting()}")
        self._file.write(np.ascontiguousarray(raw).reshape(-1).view(np.uint8).data)
        self._written += raw.nbytes
        if self._left() == 0:
            self._next()

    def __exit__(
        self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None
    ) -> None:
        try:
            self._file.close()  # which may write the rest, and find the disk full
            if kind is None and self._current == len(self._tensors):
                self._partial.replace(self._path)
                return
        except BaseException:
            self._discard()
            raise
        self._discard()
        if kind is None and self._current < len(self._tensors):
            raise ValueError(f"{self._path} was left unfinished, with {self._waiting()} to come")

    def _discard(self) -> None:
        with suppress(OSError):
            self._file.close()
        self._partial.unlink(missing_ok=True)

    def _left(self) -> int:
        return self._tensors[self._current].n_bytes - self._written

    def _next(self) -> None:
        self._file.write(bytes(-self._written % self._alignment))
        self._current += 1
        self._written = 0

    def _waiting(self) -> str:
        if self._current == len(self._tensors):
            return "the announced tensors"
        return f"the {self._left()} bytes left of {self._tensors[self._current].name}"
