"""GGUF version 3, written as a stream: metadata and tensor descriptions first, then tensors one
after another. For tests, benchmarks and converters."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from dllama.formats.gguf import DEFAULT_ALIGNMENT, MAGIC
from dllama.formats.gguf_values import NUMBER_TYPES, StoredValue, ValueType
from dllama.formats.writing.streamed import StreamedFile
from dllama.weight_source import TensorInfo

_TYPE_OF = {dtype: kind for kind, dtype in NUMBER_TYPES.items()}


def gguf_stream(
    path: Path, metadata: Mapping[str, object], tensors: Sequence[TensorInfo]
) -> StreamedFile:
    """A file to `write` the blocks of `tensors` to, in order; names are the file's own.

    Metadata values: str, bool, int (stored as u32, or as i32 or 64 bits where needed), float
    (f32), lists of one of these, numpy scalars and arrays (their own type), values as another file
    has them. One-row tensors become vectors, those of several experts have three dimensions.
    `general.alignment` is honoured.
    """
    alignment = metadata.get("general.alignment", DEFAULT_ALIGNMENT)
    if not isinstance(alignment, int):
        raise ValueError(f"general.alignment is {alignment!r}; expected an int")
    head = bytearray(MAGIC + struct.pack("<IQQ", 3, len(tensors), len(metadata)))
    for key, value in metadata.items():
        head += _string(key) + _value(value)
    offset = 0
    for tensor in tensors:
        head += _describe(tensor, offset)
        offset += -(-tensor.n_bytes // alignment) * alignment
    head += bytes(-len(head) % alignment)
    return StreamedFile(path, bytes(head), tensors, alignment)


def _describe(tensor: TensorInfo, offset: int) -> bytes:
    beyond = (tensor.rows // tensor.n_experts, tensor.n_experts)
    dims = (tensor.cols, *(size for size in beyond if size > 1))
    return (
        _string(tensor.name)
        + struct.pack(f"<I{len(dims)}Q", len(dims), *dims)
        + struct.pack("<IQ", tensor.qtype, offset)
    )


def _string(text: str) -> bytes:
    raw = text.encode()
    return struct.pack("<Q", len(raw)) + raw


def _value(value: object) -> bytes:
    """A type number and the value."""
    if isinstance(value, StoredValue):
        return value.data
    if isinstance(value, str):
        return struct.pack("<I", ValueType.STRING) + _string(value)
    if isinstance(value, list) and value and not isinstance(value[0], str):
        value = _array(value)
    if isinstance(value, list):
        head = struct.pack("<IIQ", ValueType.ARRAY, ValueType.STRING, len(value))
        return head + b"".join(_string(item) for item in value)
    if isinstance(value, np.ndarray):
        kind = _TYPE_OF[value.dtype]
        return struct.pack("<IIQ", ValueType.ARRAY, kind, value.size) + value.tobytes()
    scalar = value if isinstance(value, np.generic) else _scalar(value)
    return struct.pack("<I", _TYPE_OF[scalar.dtype]) + scalar.tobytes()


def _array(values: Sequence[object]) -> np.ndarray:
    """Truths, or numbers in the type that GGUF files commonly have lists of them in."""
    array = np.array(values)
    if array.dtype.kind == "i" and np.abs(array).max() <= np.iinfo(np.int32).max:
        return array.astype(np.int32)
    return array.astype(np.float32) if array.dtype.kind == "f" else array


def _scalar(value: object) -> np.generic:
    """A Python number in the type that GGUF files commonly have it in."""
    if isinstance(value, bool):
        return np.bool_(value)
    if isinstance(value, float):
        return np.float32(value)
    if not isinstance(value, int):
        raise ValueError(f"GGUF metadata has no type for {value!r}")
    for dtype in (np.uint32, np.int32, np.uint64, np.int64):
        if np.iinfo(dtype).min <= value <= np.iinfo(dtype).max:
            return dtype(value)
    raise ValueError(f"{value} needs more than 64 bits")
