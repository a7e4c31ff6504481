"""What is quantized: the tensors of a GGUF file as they are, of any architecture, or those of a
model of another format as GGUF has them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from dllama.errors import ModelFileError
from dllama.formats import first_bytes, open_model
from dllama.formats.checkpoint.folder import checkpoint_folder
from dllama.formats.gguf import MAGIC, GgufFile, GgufTensor
from dllama.formats.writing.convert import (
    PIECE_BYTES,
    SPLIT_KEYS,
    ModelTensors,
    converted_metadata,
)
from dllama.weight_source import TensorInfo


class TensorFile(Protocol):
    """Tensors by GGUF's names, in the order of the file, and the metadata to write."""

    @property
    def tensors(self) -> Sequence[TensorInfo]: ...

    @property
    def metadata(self) -> Mapping[str, object]:
        """What sizes can be read from."""
        ...

    @property
    def n_parts(self) -> int: ...

    def part_of(self, name: str) -> int:
        """Returns the number of the file that a tensor is in, from 0 on."""
        ...

    def keys(self) -> dict[str, object]:
        """Returns the metadata of the new file, but for its types and parts."""
        ...

    def pieces(self, info: TensorInfo) -> Iterator[np.ndarray]:
        """Yields raw rows of a tensor, uint8 (rows, bytes of a row). Raises ModelFileError."""
        ...

    def close(self) -> None: ...


class GgufTensors:
    """A GGUF file, whole or in parts."""

    def __init__(self, path: Path) -> None:
        self._file = GgufFile(path)
        try:
            self.tensors = [_described(path, t) for t in self._file.tensors.values()]
        except BaseException:
            self._file.close()
            raise
        self._parts = {id(part): number for number, part in enumerate(self._file.parts)}

    @property
    def metadata(self) -> Mapping[str, object]:
        return self._file.metadata

    @property
    def n_parts(self) -> int:
        return len(self._file.parts)

    def part_of(self, name: str) -> int:
        return self._parts[id(self._file.tensors[name].file)]

    def keys(self) -> dict[str, object]:
        keys = self._file.metadata.as_stored()
        # The writer has to know it, and all others keep the type that they have in the file.
        if "general.alignment" in keys:
            keys["general.alignment"] = self._file.metadata["general.alignment"]
        return {key: value for key, value in keys.items() if key not in SPLIT_KEYS}

    def pieces(self, info: TensorInfo) -> Iterator[np.ndarray]:
        tensor = self._file.tensors[info.name]
        step = max(1, PIECE_BYTES // info.row_bytes)
        for row in range(0, info.rows, step):
            n_rows = min(step, info.rows - row)
            at, n_bytes = tensor.offset + row * info.row_bytes, n_rows * info.row_bytes
            raw = tensor.file.view(at, n_bytes, f"tensor {info.name}")
            yield raw.reshape(n_rows, info.row_bytes)
            tensor.file.release(at, n_bytes)

    def close(self) -> None:
        self._file.close()


class ConvertedTensors:
    """A model of another format: a folder of safetensors files."""

    n_parts = 1

    def __init__(self, path: Path) -> None:
        from dllama.formats.checkpoint.source import checkpoint_metadata

        folder = checkpoint_folder(path)
        if folder is None:
            raise ModelFileError(
                f"{path} has no metadata to write; name a folder of safetensors files or a GGUF "
                "file"
            )
        self.metadata: Mapping[str, object] = checkpoint_metadata(folder)
        self._source = open_model(path)
        try:
            self._model = ModelTensors(self._source)
        except BaseException:
            self._source.close()
            raise
        self.tensors: Sequence[TensorInfo] = self._model.tensors

    def part_of(self, name: str) -> int:
        return 0

    def keys(self) -> dict[str, object]:
        return converted_metadata(self.metadata, self._source.config, self._model.most)

    def pieces(self, info: TensorInfo) -> Iterator[np.ndarray]:
        return self._model.pieces(info)

    def close(self) -> None:
        self._source.close()


def open_tensors(path: Path) -> TensorFile:
    """Opens what is to be quantized. Raises ModelFileError where it is no model."""
    if path.is_file() and first_bytes(path) == MAGIC:
        return GgufTensors(path)
    return ConvertedTensors(path)


def _described(path: Path, tensor: GgufTensor) -> TensorInfo:
    """Returns the tensor as the writer wants it. Raises ModelFileError for one of four dimensions,
    or of a type that has no known size."""
    if tensor.qtype is None or len(tensor.dims) > 3 or 0 in tensor.dims:
        raise ModelFileError(
            f"{path}: the tensor {tensor.name!r} is {tensor.type_name} of {len(tensor.dims)} "
            "dimensions; expected a known type and up to three. It cannot be quantized by this "
            "version."
        )
    n_matrices = tensor.dims[2] if len(tensor.dims) == 3 else 1
    return TensorInfo(tensor.name, tensor.qtype, tensor.rows, tensor.cols, n_experts=n_matrices)
