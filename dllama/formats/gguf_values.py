"""The scalar and array values of GGUF metadata, read one after another from a mapped file.

Source: the GGUF specification (ggml/docs/gguf.md). Everything is little-endian; strings are a
64-bit length and UTF-8 bytes; arrays are an element type, a 64-bit count and the elements."""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import NamedTuple

import numpy as np

from dllama.errors import ModelFileError
from dllama.formats.mapped import MappedFile

_U32 = struct.Struct("<I")
_U64 = struct.Struct("<Q")

MAX_NAME_BYTES = 2**16 - 1  # what the specification allows a key
MAX_STRING_BYTES = 2**24  # a hundred times the longest chat template; a corrupt length is larger


class ValueType(IntEnum):
    """Metadata value types, numbered as in GGUF files."""

    U8 = 0
    I8 = 1
    U16 = 2
    I16 = 3
    U32 = 4
    I32 = 5
    F32 = 6
    BOOL = 7
    STRING = 8
    ARRAY = 9
    U64 = 10
    I64 = 11
    F64 = 12


NUMBER_TYPES: dict[ValueType, np.dtype[np.generic]] = {
    ValueType.U8: np.dtype("<u1"),
    ValueType.I8: np.dtype("<i1"),
    ValueType.U16: np.dtype("<u2"),
    ValueType.I16: np.dtype("<i2"),
    ValueType.U32: np.dtype("<u4"),
    ValueType.I32: np.dtype("<i4"),
    ValueType.F32: np.dtype("<f4"),
    ValueType.BOOL: np.dtype("?"),
    ValueType.U64: np.dtype("<u8"),
    ValueType.I64: np.dtype("<i8"),
    ValueType.F64: np.dtype("<f8"),
}


class StoredValue(NamedTuple):
    """A value as files have it: the number of its type, and its bytes."""

    data: bytes


class LazyStrings:
    """An array of strings whose bounds are checked and whose text is decoded when asked for."""

    def __init__(self, file: MappedFile, at: int, count: int) -> None:
        self._file = file
        self._at = at
        self.count = count

    def load(self) -> list[str]:
        """The strings; bytes that are no UTF-8 become U+FFFD."""
        self._file.view(self._at, 0, "a metadata array")  # says so where the file was closed
        buffer, at, length_at = self._file.buffer, self._at, _U64.unpack_from
        strings: list[str] = []
        for _ in range(self.count):
            start = at + 8
            at = start + length_at(buffer, at)[0]
            strings.append(str(buffer[start:at], "utf-8", "replace"))
        return strings


class LazyNumbers:
    """An array of numbers, copied out of the file when asked for."""

    def __init__(self, file: MappedFile, at: int, count: int, dtype: np.dtype[np.generic]) -> None:
        self._file = file
        self._at = at
        self.count = count
        self.dtype = dtype

    def load(self) -> np.ndarray:
        """The numbers, (count,) of the file's type; any byte but 0 is True."""
        raw = self._file.view(self._at, self.count * self.dtype.itemsize, "a metadata array")
        if self.dtype.kind == "b":
            truth: np.ndarray = raw != 0
            return truth
        return np.frombuffer(raw.tobytes(), self.dtype)


class Cursor:
    """Reads values forward from a position. Leaving the file is a ModelFileError, and no count
    or length is believed before the file is known to be long enough for it."""

    def __init__(self, file: MappedFile, at: int = 0) -> None:
        self._file = file
        self.path = file.path
        self.at = at

    def u32(self, what: str) -> int:
        return int(_U32.unpack_from(self._file.buffer, self._advance(4, what))[0])

    def u64(self, what: str) -> int:
        return int(_U64.unpack_from(self._file.buffer, self._advance(8, what))[0])

    def count(self, item_bytes: int, what: str) -> int:
        """A 64-bit number of items that take at least `item_bytes` each."""
        count = self.u64(f"the number of {what}")
        room = (self._file.size - self.at) // item_bytes
        if count > room:
            raise ModelFileError(
                f"{self._file.path} claims {count} {what}, but the rest of the file has room for "
                f"{room} at most. It is truncated or corrupt; download or write it again."
            )
        return count

    def name(self, what: str) -> str:
        """A key or a tensor's name, which are short."""
        return self.string(what, MAX_NAME_BYTES)

    def string(self, what: str, max_bytes: int = MAX_STRING_BYTES) -> str:
        n_bytes = self.u64(f"the length of {what}")
        if max_bytes < n_bytes <= self._file.size - self.at:
            raise ModelFileError(
                f"{self._file.path}: {what} is {n_bytes} bytes long; expected {max_bytes} at most. "
                f"The file is corrupt; download or write it again."
            )
        start = self._advance(n_bytes, what)
        return str(self._file.buffer[start : start + n_bytes], "utf-8", "replace")

    def stored(self, start: int, end: int) -> StoredValue:
        """The value that was read from `start` to `end`, as it stands there."""
        return StoredValue(self._file.view(start, end - start, "metadata").tobytes())

    def value(self, what: str) -> object:
        """One typed value: a scalar, a str, LazyStrings or LazyNumbers."""
        kind = self._value_type(what)
        if kind is ValueType.STRING:
            return self.string(what)
        if kind is ValueType.ARRAY:
            return self._array(what)
        dtype = NUMBER_TYPES[kind]
        start = self._advance(dtype.itemsize, what)
        scalar = np.frombuffer(self._file.buffer[start : start + dtype.itemsize], dtype)[0]
        return bool(scalar) if kind is ValueType.BOOL else scalar.item()

    def _array(self, what: str) -> LazyStrings | LazyNumbers:
        kind = self._value_type(what)
        if kind is ValueType.STRING:
            count = self.count(8, f"strings in {what}")
            start = self.at
            self._skip_strings(count, what)
            return LazyStrings(self._file, start, count)
        if kind is ValueType.ARRAY:
            raise ModelFileError(
                f"{self._file.path}: {what} is an array of arrays, which no known model uses; "
                f"the file is corrupt or of a newer kind."
            )
        dtype = NUMBER_TYPES[kind]
        count = self.count(dtype.itemsize, f"numbers in {what}")
        start = self._advance(count * dtype.itemsize, what)
        return LazyNumbers(self._file, start, count, dtype)

    def _skip_strings(self, count: int, what: str) -> None:
        # A vocabulary has 400,000 of these, so the loop does nothing but add and compare.
        buffer, at, length_at = self._file.buffer, self.at, _U64.unpack_from
        last = self._file.size - 8
        for _ in range(count):
            if at > last:
                break
            n_bytes = length_at(buffer, at)[0]
            if n_bytes > MAX_STRING_BYTES:
                break
            at += 8 + n_bytes
        else:
            if at <= self._file.size:
                self.at = at
                return
        raise ModelFileError(
            f"{self._file.path}: a string of {what} runs past the end of the file, or is longer "
            f"than {MAX_STRING_BYTES} bytes. The file is truncated or corrupt; download it again."
        )

    def _value_type(self, what: str) -> ValueType:
        number = self.u32(f"the type of {what}")
        try:
            return ValueType(number)
        except ValueError:
            raise ModelFileError(
                f"{self._file.path}: {what} has the value type {number}; GGUF knows 0 to 12. "
                f"The file is corrupt or of a newer kind."
            ) from None

    def _advance(self, n_bytes: int, what: str) -> int:
        """Moves past `n_bytes` and returns where they start."""
        start, end = self.at, self.at + n_bytes
        if end > self._file.size:
            raise ModelFileError(
                f"{self._file.path} ends at byte {self._file.size}, inside {what}, which reaches "
                f"to {end}. It is truncated or corrupt; download or write it again."
            )
        self.at = end
        return start
