"""GGUF files, version 2 and 3, little-endian, whole or split: metadata and where tensors lie.

Source: the GGUF specification (ggml/docs/gguf.md) and gguf-split of llama.cpp. Knows nothing of
architectures; dllama.formats.gguf_source makes a model of it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path

from dllama.errors import ModelFileError
from dllama.formats.gguf_metadata import GgufMetadata, count_entries, read_metadata
from dllama.formats.gguf_values import Cursor
from dllama.formats.mapped import MappedFile
from dllama.qtypes import QType, row_bytes

MAGIC = b"GGUF"
VERSIONS = (2, 3)
DEFAULT_ALIGNMENT = 32
_MAX_DIMS = 4  # GGML_MAX_DIMS
_MIN_TENSOR_BYTES = 8 + 4 + 4 + 8  # an empty name, no dimensions, a type, an offset
_QTYPES = {int(qtype): qtype for qtype in QType}
_PART_NAME = re.compile(r"^(?P<stem>.+)-(?P<part>\d{5})-of-(?P<count>\d{5})\.gguf$")


@dataclass(frozen=True, slots=True)
class GgufTensor:
    """One tensor as the file describes it. `dims` are in ggml's order, fastest first, so a
    matrix has (cols, rows). `n_bytes` is None where `type_id` is of a kind we do not know."""

    name: str
    dims: tuple[int, ...]
    type_id: int
    file: MappedFile
    offset: int
    n_bytes: int | None

    @property
    def qtype(self) -> QType | None:
        return _QTYPES.get(self.type_id)

    @property
    def type_name(self) -> str:
        return self.qtype.name if self.qtype is not None else f"type {self.type_id}"

    @property
    def n_values(self) -> int:
        return prod(self.dims)

    @property
    def cols(self) -> int:
        return self.dims[0] if self.dims else 1

    @property
    def rows(self) -> int:
        return prod(self.dims[1:])


class GgufFile:
    """A GGUF model: the metadata of its first part and the tensors of all parts.

    Any part of a split model names the whole. Raises ModelFileError where a part is missing,
    truncated, corrupt or of another kind.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.parts: list[MappedFile] = []
        self.tensors: dict[str, GgufTensor] = {}
        self.version = 0
        paths = part_paths(self.path)
        try:
            self.metadata = self._read_part(paths[0])
            self._check_split(self.metadata, paths[0], 0, len(paths))
            for number, part in enumerate(paths[1:], start=1):
                self._check_split(self._read_part(part), part, number, len(paths))
            self._check_tensor_count()
        except BaseException:
            self.close()
            raise

    def tensor(self, name: str) -> GgufTensor:
        """The tensor of that name in the file's own spelling, or ModelFileError."""
        try:
            return self.tensors[name]
        except KeyError:
            raise ModelFileError(
                f"{self.path} has no tensor {name!r}; it holds {len(self.tensors)} others. "
                f"The file is incomplete or of another architecture than it says."
            ) from None

    @property
    def n_bytes(self) -> int:
        """The size of all parts on disk."""
        return sum(part.size for part in self.parts)

    def close(self) -> None:
        for part in self.parts:
            part.close()

    def _read_part(self, path: Path) -> GgufMetadata:
        file = MappedFile(path)
        self.parts.append(file)
        cursor = Cursor(file)
        self.version = _read_version(file, cursor)
        n_tensors = cursor.count(_MIN_TENSOR_BYTES, "tensors")
        metadata = read_metadata(cursor, count_entries(cursor), path)
        heads = _read_heads(cursor, n_tensors)
        alignment = _alignment(metadata, path)
        data_at = -(-cursor.at // alignment) * alignment
        for name, (dims, type_id, offset) in heads.items():
            if name in self.tensors:
                raise _twice(path, name)
            _check_offset(file, name, offset, alignment)
            self.tensors[name] = _place(file, name, dims, type_id, data_at + offset)
        return metadata

    def _check_split(
        self, metadata: Mapping[str, object], path: Path, number: int, n_parts: int
    ) -> None:
        count = metadata.get("split.count", 0)
        if n_parts == 1 and isinstance(count, int) and count > 1:
            raise ModelFileError(
                f"{path} is one of {count} parts, but its name does not say which; give the parts "
                f"back their names, like model-00001-of-{count:05}.gguf, in one directory."
            )
        found = (metadata.get("split.no"), count)
        is_said = all(isinstance(n, int) for n in found) and found == (number, n_parts)
        if n_parts > 1 and not is_said:
            raise ModelFileError(
                f"{path} says it is part {found[0]} of {found[1]} (counted from 0); its name says "
                f"{number} of {n_parts}. Give the parts back the names they were downloaded with."
            )

    def _check_tensor_count(self) -> None:
        wanted = self.metadata.get("split.tensors.count")
        if len(self.parts) > 1 and isinstance(wanted, int) and wanted != len(self.tensors):
            raise ModelFileError(
                f"{self.path}: its {len(self.parts)} parts hold {len(self.tensors)} tensors "
                f"together, the first one promises {wanted}. Download all parts again."
            )


def part_paths(path: Path) -> list[Path]:
    """All parts of the model that `path` is a part of, in order; itself where it is whole."""
    match = _PART_NAME.match(path.name)
    if not match:
        return [path]
    count = int(match["count"])
    if not path.exists():
        return [path]  # opening it says so
    if not 1 <= int(match["part"]) <= count:
        raise ModelFileError(f"{path}: there is no part {match['part']} of {match['count']}.")
    paths: list[Path] = []
    for number in range(1, count + 1):
        part = path.with_name(f"{match['stem']}-{number:05}-of-{count:05}.gguf")
        if not part.exists():
            raise ModelFileError(
                f"{path.name} is one of {count} parts, and {part.name} is missing in "
                f"{path.parent}; download it to the same directory."
            )
        paths.append(part)
    return paths


def _read_version(file: MappedFile, cursor: Cursor) -> int:
    magic = file.buffer[:4]
    if magic != MAGIC:
        raise ModelFileError(
            f"{file.path} is no GGUF file: it begins with {magic!r}, a GGUF file with {MAGIC!r}."
        )
    cursor.at = 4
    version = cursor.u32("the GGUF version")
    if version in VERSIONS:
        return version
    if version and version & 0xFFFF == 0:
        raise ModelFileError(
            f"{file.path} is a big-endian GGUF file; only little-endian ones are supported. "
            f"Convert it with gguf_convert_endian of llama.cpp."
        )
    raise ModelFileError(
        f"{file.path} is GGUF version {version}; versions 2 and 3 are supported. "
        f"Convert the model again with a current converter."
    )


def _read_heads(cursor: Cursor, n_tensors: int) -> dict[str, tuple[tuple[int, ...], int, int]]:
    """The next `n_tensors` descriptions: dimensions, type number and offset by name."""
    heads: dict[str, tuple[tuple[int, ...], int, int]] = {}
    for i in range(n_tensors):
        name = cursor.name(f"the name of tensor {i}")
        if name in heads:
            raise _twice(cursor.path, name)
        heads[name] = _read_head(cursor, name)
    return heads


def _read_head(cursor: Cursor, name: str) -> tuple[tuple[int, ...], int, int]:
    what = f"the description of tensor {name!r}"
    n_dims = cursor.u32(what)
    if n_dims > _MAX_DIMS:
        raise ModelFileError(
            f"{cursor.path}: the tensor {name!r} has {n_dims} dimensions; GGUF allows {_MAX_DIMS}. "
            f"The file is corrupt; download or write it again."
        )
    dims = tuple(cursor.u64(what) for _ in range(n_dims))
    return dims, cursor.u32(what), cursor.u64(what)


def _twice(path: Path, name: str) -> ModelFileError:
    return ModelFileError(
        f"{path}: the tensor {name!r} comes twice. The file is corrupt; download or write it again."
    )


def _alignment(metadata: Mapping[str, object], path: Path) -> int:
    value = metadata.get("general.alignment", DEFAULT_ALIGNMENT)
    is_power = isinstance(value, int) and 0 < value <= 2**30 and value & (value - 1) == 0
    if isinstance(value, int) and not isinstance(value, bool) and is_power:
        return value
    raise ModelFileError(
        f"{path}: general.alignment is {value!r}; expected a power of two. The file is corrupt."
    )


def _check_offset(file: MappedFile, name: str, offset: int, alignment: int) -> None:
    if offset % alignment:
        raise ModelFileError(
            f"{file.path}: the tensor {name!r} lies at offset {offset}, which is no multiple of "
            f"the file's alignment {alignment}. The file is corrupt; download or write it again."
        )


def _place(
    file: MappedFile, name: str, dims: tuple[int, ...], type_id: int, offset: int
) -> GgufTensor:
    n_bytes: int | None = None
    qtype = _QTYPES.get(type_id)
    if qtype is not None:
        try:
            n_bytes = prod(dims[1:]) * row_bytes(qtype, dims[0] if dims else 1)
        except ValueError as error:
            raise ModelFileError(
                f"{file.path}: the tensor {name!r} cannot be {qtype.name}: {error}. "
                f"The file is corrupt; download or write it again."
            ) from None
    end = offset + (n_bytes or 0)
    if end > file.size:
        raise ModelFileError(
            f"{file.path}: the tensor {name!r} ends at byte {end}, but the file ends at "
            f"{file.size}. It is truncated; download it again."
        )
    return GgufTensor(name, dims, type_id, file, offset, n_bytes)
