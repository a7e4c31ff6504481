"""The file of a base model's probabilities, in the format of llama-perplexity (llama.cpp,
tools/perplexity/perplexity.cpp): either program reads what the other has written.

A head: "_logits_", then the width of a window, the size of the vocabulary and the number of windows
as int32, and the windows' tokens. Then a row for each token that counts: two float32, the step and
the least of the log-probabilities, and each token's log-probability above the least, in steps, as
uint16. Log-probabilities more than 16 below the largest are all the least.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

from dllama.errors import ModelFileError
from dllama.formats.mapped import MappedFile
from dllama.formats.writing.appearing import AppearingFile
from dllama.step import LogitRow

MAGIC = b"_logits_"
RANGE = 16.0  # between the largest and the least log-probability
MOST = 65535
_HEAD = struct.Struct("<8siii")
_FACTORS = 4  # uint16: two float32


def counted_tokens(width: int) -> int:
    """Returns how many tokens of a window count."""
    return width - 1 - width // 2


def _row_words(vocab_size: int) -> int:
    return 2 * ((vocab_size + 1) // 2) + _FACTORS


def file_bytes(width: int, vocab_size: int, n_windows: int) -> int:
    """Returns the size of a whole file."""
    rows = n_windows * counted_tokens(width) * _row_words(vocab_size) * 2
    return _HEAD.size + 4 * width * n_windows + rows


def log_probabilities(row: np.ndarray) -> np.ndarray:
    """Returns the float32 log-probabilities of a stored row, uint16 (words of a row,)."""
    step, least = row[:_FACTORS].view("<f4")
    found: np.ndarray = np.float32(step) * row[_FACTORS:].astype(np.float32) + np.float32(least)
    return found


def stored_row(row: LogitRow) -> np.ndarray:
    """Returns a row as the file has it, uint16."""
    logits, words = row.logits, np.zeros(_row_words(len(row.logits)), "<u2")
    top = float(logits.max())
    low = max(float(logits.min()), top - RANGE)
    step = np.float32((top - low) / MOST)
    words[:_FACTORS] = np.array([step, low - row.log_sum_exp], "<f4").view("<u2")
    if step > 0:
        steps = np.rint((logits - np.float32(low)) * (np.float32(1) / step))
        words[_FACTORS : _FACTORS + len(logits)] = steps.clip(0, MOST)
    return words


class BaseWriter:
    """Writes a file, row by row. As a context it gives the file its name when all rows are there,
    and leaves none otherwise."""

    def __init__(self, path: Path, windows: Sequence[Sequence[int]], vocab_size: int) -> None:
        self._file = AppearingFile(path)
        width = len(windows[0])
        head = _HEAD.pack(MAGIC, width, vocab_size, len(windows))
        self._head = head + np.array(windows, "<i4").tobytes()
        self._left = len(windows) * counted_tokens(width)

    def __enter__(self) -> Self:
        self._file.begin(self._head)
        return self

    def add(self, row: LogitRow) -> None:
        """Writes the row of the next token that counts."""
        self._file.write(stored_row(row).tobytes())
        self._left -= 1

    def __exit__(
        self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None
    ) -> None:
        self._file.end(is_whole=kind is None and self._left == 0)


class BaseFile:
    """A file that was written, by either program. Raises ModelFileError where it is none, or cut
    short."""

    def __init__(self, path: Path) -> None:
        self._file = MappedFile(path)
        try:
            self._read_head(path)
        except BaseException:
            self._file.close()
            raise

    def _read_head(self, path: Path) -> None:
        n_bytes = self._file.size
        if n_bytes < _HEAD.size or self._file.buffer[: len(MAGIC)] != MAGIC:
            raise ModelFileError(
                f"{path} holds no probabilities of a base model: it begins with "
                f"{self._file.buffer[:8]!r}, and such a file with {MAGIC!r}; write one with "
                "--kl-divergence-base alone"
            )
        head = self._file.view(0, _HEAD.size, "the head").tobytes()
        _, self.width, self.vocab_size, self.n_windows = _HEAD.unpack(head)
        is_sane = min(self.width - 3, self.vocab_size, self.n_windows) > 0
        if not is_sane or n_bytes != file_bytes(self.width, self.vocab_size, self.n_windows):
            raise ModelFileError(
                f"{path} has {n_bytes} bytes, which are not those of {self.n_windows} windows of "
                f"{self.width} tokens and a vocabulary of {self.vocab_size}; it was cut short or "
                "damaged, so write it anew"
            )
        raw = self._file.view(_HEAD.size, 4 * self.width * self.n_windows, "the tokens")
        tokens = np.frombuffer(raw.tobytes(), "<i4").reshape(self.n_windows, self.width)
        if tokens.min() < 0 or tokens.max() >= self.vocab_size:
            raise ModelFileError(
                f"{path} has tokens that its vocabulary of {self.vocab_size} does not know; it is "
                "damaged, so write it anew"
            )
        self.windows: list[list[int]] = tokens.tolist()

    def rows(self, window: int) -> Iterator[np.ndarray]:
        """Yields the log-probabilities, float32 (vocab_size,), of each token of a window that
        counts."""
        n_rows, n_bytes = counted_tokens(self.width), 2 * _row_words(self.vocab_size)
        start = _HEAD.size + 4 * self.width * self.n_windows + window * n_rows * n_bytes
        for number in range(n_rows):
            raw = self._file.view(start + number * n_bytes, n_bytes, f"row {number}").tobytes()
            yield log_probabilities(np.frombuffer(raw, "<u2"))[: self.vocab_size]

    def close(self) -> None:
        self._file.close()
