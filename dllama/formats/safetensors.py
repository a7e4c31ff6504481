"""safetensors files: where tensors lie, with every size checked. Knows nothing of models.

Source: the description of the format in the repository of the `safetensors` library: a 64-bit
length, a JSON header of that length, and the tensors' bytes, all little-endian; offsets count from
the end of the header, tensors leave no holes."""

from __future__ import annotations

import json
from dataclasses import dataclass
from math import prod
from pathlib import Path

from dllama.errors import ModelFileError
from dllama.formats.mapped import MappedFile

MAX_HEADER_BYTES = 100_000_000  # what the library allows
_MAX_SIDE = 1 << 40
_MAX_DIMS = 8
ITEM_BYTES = {
    "F64": 8, "F32": 4, "F16": 2, "BF16": 2, "F8_E4M3": 1, "F8_E5M2": 1, "I64": 8, "I32": 4,
    "I16": 2, "I8": 1, "U64": 8, "U32": 4, "U16": 2, "U8": 1, "BOOL": 1,
}  # fmt: skip
"""Bytes of a number of each type; files with other types are read, but not those tensors."""


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """One tensor as a file describes it, row-major: `shape` begins with the slowest dimension."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    file: MappedFile
    offset: int
    n_bytes: int

    @property
    def rows(self) -> int:
        """Returns the product of all sides but the last: 1 for a vector."""
        return prod(self.shape[:-1])

    @property
    def cols(self) -> int:
        return self.shape[-1] if self.shape else 1


def read_safetensors(file: MappedFile) -> dict[str, StoredTensor]:
    """Returns the tensors of a file by their names. Raises ModelFileError where it is damaged."""
    header, data_at = _read_header(file)
    tensors: dict[str, StoredTensor] = {}
    for name, entry in header.items():
        if name != "__metadata__":
            tensors[name] = _read_entry(file, name, entry, data_at)
    _check_places(file, list(tensors.values()), data_at)
    return tensors


def _read_header(file: MappedFile) -> tuple[dict[str, object], int]:
    """Returns the header's object, and where the first tensor begins."""
    n_bytes = int.from_bytes(file.view(0, 8, "the header's length").tobytes(), "little")
    if n_bytes > MAX_HEADER_BYTES:
        raise _corrupt(file.path, f"its header claims {n_bytes} bytes, {MAX_HEADER_BYTES} at most")
    text = file.view(8, n_bytes, "the header").tobytes()
    try:
        header = json.loads(text, object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        raise _corrupt(file.path, f"its header is no JSON ({str(error)[:200]})") from None
    if not isinstance(header, dict):
        raise _corrupt(file.path, "its header is no JSON object")
    return header, 8 + n_bytes


def _once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name comes twice in it")
    return found


def _read_entry(file: MappedFile, name: str, entry: object, data_at: int) -> StoredTensor:
    what = f"the tensor {name[:200]!r}"
    if not isinstance(entry, dict) or not isinstance(entry.get("dtype"), str):
        raise _corrupt(file.path, f"{what} has no dtype")
    shape = _whole_numbers(entry.get("shape"), _MAX_DIMS, _MAX_SIDE)
    offsets = _whole_numbers(entry.get("data_offsets"), 2, file.size)
    if shape is None or offsets is None or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise _corrupt(file.path, f"{what} has no sound shape and data_offsets")
    dtype, (start, end) = entry["dtype"], offsets
    size = ITEM_BYTES.get(dtype)
    if size is not None and end - start != prod(shape) * size:
        raise _corrupt(
            file.path, f"{what} has {end - start} bytes; {list(shape)} of {dtype} need "
            f"{prod(shape) * size}"
        )  # fmt: skip
    file.view(data_at + start, end - start, what)
    return StoredTensor(name, dtype, tuple(shape), file, data_at + start, end - start)


def _whole_numbers(value: object, n_max: int, most: int) -> list[int] | None:
    """Returns a list of at most n_max numbers from 0 to `most`; None for anything else."""
    if not isinstance(value, list) or len(value) > n_max:
        return None
    numbers = [item for item in value if type(item) is int and 0 <= item <= most]
    return numbers if len(numbers) == len(value) else None


def _check_places(file: MappedFile, tensors: list[StoredTensor], data_at: int) -> None:
    """Raises ModelFileError unless the tensors cover the data once, without holes."""
    end, before = data_at, "the header"
    for tensor in sorted(tensors, key=lambda t: (t.offset, t.n_bytes)):
        if tensor.offset != end:
            verb = "overlap" if tensor.offset < end else "leave a hole between them"
            raise _corrupt(file.path, f"{before} and the tensor {tensor.name[:200]!r} {verb}")
        end, before = tensor.offset + tensor.n_bytes, f"the tensor {tensor.name[:200]!r}"
    if end != file.size:
        raise _corrupt(file.path, f"its tensors end at byte {end}, but the file at {file.size}")


def _corrupt(path: Path, what: str) -> ModelFileError:
    return ModelFileError(
        f"{path} is no sound safetensors file: {what}. It is truncated or corrupt; download it "
        f"again."
    )
