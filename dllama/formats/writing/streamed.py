"""Files written front to back, tensor by tensor, without holding one whole. They appear under their
name only when complete, so half a model is never seen."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

from dllama.formats.writing.appearing import AppearingFile
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
        self._file = AppearingFile(path)
        self._head = head
        self._tensors = list(tensors)
        self._alignment = alignment
        self._current = 0
        self._written = 0  # bytes of the current tensor

    def __enter__(self) -> Self:
        self._file.begin(self._head)
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
        self._file.end(is_whole=kind is None and self._current == len(self._tensors))
        if kind is None and self._current < len(self._tensors):
            raise ValueError(f"{self._path} was left unfinished, with {self._waiting()} to come")

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
