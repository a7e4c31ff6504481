"""The metadata of a GGUF file as a mapping, and typed access to it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np

from dllama.errors import ModelFileError
from dllama.formats.gguf_values import Cursor, LazyNumbers, LazyStrings, StoredValue

_MIN_ENTRY_BYTES = 8 + 4 + 1  # an empty key, a type, one byte of value


class GgufMetadata(Mapping[str, object]):
    """Keys as in the file; values are int, float, bool, str, list[str] or numpy arrays.

    Arrays are taken out of the file at their first use and kept, so a vocabulary of 128k tokens
    costs nothing to those who do not ask for it.
    """

    def __init__(
        self, entries: dict[str, object], stored: Callable[[str], StoredValue] | None = None
    ) -> None:
        self._entries, self._stored = entries, stored

    def as_stored(self) -> dict[str, object]:
        """Returns all values as the file has them, for a file that keeps their types; those of
        metadata that come from no file as they are."""
        if self._stored is None:
            return dict(self)
        return {key: self._stored(key) for key in self}

    def __getitem__(self, key: str) -> object:
        value = self._entries[key]
        if isinstance(value, LazyStrings | LazyNumbers):
            value = self._entries[key] = value.load()
        return value

    def __contains__(self, key: object) -> bool:
        return key in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def array_length(self, key: str) -> int | None:
        """Returns the number of items of an array, without loading it; None where there is no
        array."""
        value = self._entries.get(key)
        if isinstance(value, LazyStrings | LazyNumbers):
            return value.count
        return len(value) if isinstance(value, list | np.ndarray) else None


def read_metadata(cursor: Cursor, n_entries: int, path: Path) -> GgufMetadata:
    """The next `n_entries` key/value pairs. A key that comes twice is a ModelFileError."""
    entries: dict[str, object] = {}
    spans: dict[str, tuple[int, int]] = {}
    for i in range(n_entries):
        key = cursor.name(f"metadata key {i}")
        if key in entries:
            raise ModelFileError(
                f"{path}: the metadata key {key!r} comes twice. The file is corrupt; download or "
                f"write it again."
            )
        start = cursor.at
        entries[key] = cursor.value(f"the metadata value {key!r}")
        spans[key] = (start, cursor.at)
    return GgufMetadata(entries, lambda key: cursor.stored(*spans[key]))


def count_entries(cursor: Cursor) -> int:
    """The number of metadata entries a header announces, checked against the file's size."""
    return cursor.count(_MIN_ENTRY_BYTES, "metadata entries")


class ArchKeys:
    """The hyperparameters of one architecture: `keys.integer("block_count")` is the metadata
    value `llama.block_count`. A missing key without a default, or a value of the wrong kind, is
    a ModelFileError that names the key."""

    def __init__(self, metadata: Mapping[str, object], arch: str, path: Path) -> None:
        self._metadata = metadata
        self._arch = arch
        self.path = path

    def __contains__(self, key: str) -> bool:
        return f"{self._arch}.{key}" in self._metadata

    def integer(self, key: str, default: int | None = None) -> int:
        """A whole number > 0. An array counts where all its items agree."""
        value = _agreed(self._value(key, default))
        if isinstance(value, bool) or not isinstance(value, int) or not 0 < value < 2**31:
            raise self._wrong(key, value, "a whole number between 1 and 2^31")
        return value

    def count(self, key: str) -> int:
        """A whole number from 0 on; 0 where there is none."""
        return 0 if self.raw(key) in (None, 0) else self.integer(key)

    def number(self, key: str, default: float | None = None, *, may_be_zero: bool = False) -> float:
        """A finite number > 0, or 0 where that has a meaning."""
        value = self._value(key, default)
        if isinstance(value, int | float) and not isinstance(value, bool):
            number = float(value)
            if math.isfinite(number) and (number > 0 or (may_be_zero and number == 0)):
                return number
        raise self._wrong(key, value, "a number of at least 0" if may_be_zero else "one above 0")

    def text(self, key: str, default: str) -> str:
        value = self._value(key, default)
        if not isinstance(value, str):
            raise self._wrong(key, value, "a text")
        return value

    def raw(self, key: str) -> object:
        """The value as the file has it; None where there is none. An array of numbers counts where
        all of them agree."""
        value = _agreed(self._metadata.get(f"{self._arch}.{key}"))
        if isinstance(value, np.ndarray):
            raise self._wrong(key, value, "one value")
        return value

    def listed(self, key: str) -> object:
        """The value; an array as the list that a folder has in its place."""
        value = self._metadata.get(f"{self._arch}.{key}")
        return value.tolist() if isinstance(value, np.ndarray) else value

    def _value(self, key: str, default: object) -> object:
        value = self._metadata.get(f"{self._arch}.{key}", default)
        if value is None:
            raise ModelFileError(
                f"{self.path}: the metadata lacks {self._arch}.{key}, which a model of this "
                f"architecture must have. Convert it again with a current converter."
            )
        return value

    def _wrong(self, key: str, value: object, expected: str) -> ModelFileError:
        shown = repr(value)
        shown = shown if len(shown) <= 80 else shown[:77] + "..."
        return ModelFileError(
            f"{self.path}: the metadata value {self._arch}.{key} is {shown}; expected {expected}. "
            f"The file is corrupt, or describes a model this version does not support."
        )


def _agreed(value: object) -> object:
    """Returns what all items of an array are; a value that is none, or whose items differ, as it
    is."""
    if isinstance(value, np.ndarray) and value.size and np.all(value == value[0]):
        return value[0].item()
    return value
