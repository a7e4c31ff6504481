"""Writes any model as a GGUF file: its tensors as they are read, and its metadata."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from dllama.config import ModelConfig
from dllama.errors import ModelFileError
from dllama.formats.floats import floats_of
from dllama.formats.gguf_config import N_FURTHER
from dllama.formats.gguf_source import their_name
from dllama.formats.stored_orders import block_order
from dllama.formats.stored_views import by_stored_name
from dllama.formats.writing.encode import encode
from dllama.formats.writing.gguf_export import (
    FILE_TYPE,
    described,
    factor_rows,
    factor_tensors,
    file_order,
    in_file_order,
    latent_sizes,
    rope_sections,
    stored_info,
)
from dllama.formats.writing.gguf_writer import gguf_stream
from dllama.models.tensors import Tensor
from dllama.qtypes import BLOCK, QType
from dllama.weight_source import TensorInfo, WeightSource

PIECE_BYTES = 16 << 20
SPLIT_KEYS = ("split.no", "split.count", "split.tensors.count")  # of the parts of a file
UNUSED = 5  # GGUF's type of a token that no text makes


class ModelTensors:
    """A model's tensors as GGUF files have them: names, and the order of rotary rows."""

    def __init__(self, source: WeightSource) -> None:
        """Raises ModelFileError where GGUF has no type for a tensor."""
        self._source, config = source, source.config
        self._parts = by_stored_name(config, their_name)
        self.tensors = [
            stored_info(
                theirs, [_described(config, source.tensors[name], tensor) for name, tensor in parts]
            )
            for theirs, parts in self._parts.items()
        ]
        factors = factor_tensors(config)
        self._factors = {
            info.name: row for info, row in zip(factors, factor_rows(config), strict=True)
        }
        self.tensors += factors

    def pieces(self, info: TensorInfo) -> Iterator[np.ndarray]:
        """Yields the bytes of a tensor, uint8 (rows, bytes of a row) each; its memory is given back
        after the last."""
        if info.name in self._factors:
            yield self._factors[info.name]
            return
        for name, tensor in self._parts[info.name]:
            yield from _pieces(self._source, name, tensor)
            self._source.release(name)

    @property
    def most(self) -> QType:
        """The type of most bytes of matrices."""
        matrices = [info for info in self.tensors if info.rows > info.n_experts]
        sums: dict[QType, int] = {}
        for info in matrices:
            sums[info.qtype] = sums.get(info.qtype, 0) + info.n_bytes
        return max(sums, key=lambda qtype: sums[qtype])


def write_gguf(
    source: WeightSource,
    metadata: Mapping[str, object],
    path: Path,
    on_bytes: Callable[[int], None] = lambda n: None,
) -> None:
    """Writes the model, with `metadata` under GGUF's keys; `on_bytes` hears of every piece. The
    file appears when it is whole. Raises ModelFileError where GGUF has no type for a tensor."""
    model = ModelTensors(source)
    keys = converted_metadata(metadata, source.config, model.most)
    with gguf_stream(path, keys, model.tensors) as out:
        for info in model.tensors:
            for piece in model.pieces(info):
                out.write(piece)
                on_bytes(piece.nbytes)


def converted_metadata(
    metadata: Mapping[str, object], config: ModelConfig, qtype: QType
) -> dict[str, object]:
    """Returns the metadata of a file whose matrices are mostly `qtype`. The list of tokens is as
    long as the embedding table, as llama.cpp wants it, and Llama 3's scaling is in a tensor."""
    keys = {key: value for key, value in metadata.items() if key not in SPLIT_KEYS}
    _leave_further_layers_out(keys, config)
    if config.rope_factors is not None and config.long_rope_factors is None:
        keys = {key: v for key, v in keys.items() if ".rope.scaling." not in key}
    keys |= {
        "general.file_type": FILE_TYPE[qtype],
        "general.quantization_version": 2,
        f"{config.arch}.vocab_size": config.vocab_size,
        f"{config.arch}.rope.dimension_count": config.rotary_dim,
    }
    of_arch = rope_sections(config) | latent_sizes(config)
    keys |= {f"{config.arch}.{key}": value for key, value in of_arch.items()}
    tokens = keys.get("tokenizer.ggml.tokens")
    if isinstance(tokens, list) and len(tokens) < config.vocab_size:
        n = config.vocab_size - len(tokens)
        keys["tokenizer.ggml.tokens"] = [*tokens, *(f"[PAD{len(tokens) + i}]" for i in range(n))]
        fillers = {"token_type": UNUSED, "scores": -1e6}
        for key, filler in fillers.items():
            old = keys.get(f"tokenizer.ggml.{key}")
            if isinstance(old, np.ndarray):
                padded = np.concatenate([old, np.full(n, filler, old.dtype)])
                keys[f"tokenizer.ggml.{key}"] = padded
    return keys


def _leave_further_layers_out(keys: dict[str, object], config: ModelConfig) -> None:
    """Takes the layers that predict further tokens, which are not written, out of what the metadata
    count."""
    has_further = keys.pop(f"{config.arch}.{N_FURTHER}", None) is not None
    before = keys.get(f"{config.arch}.block_count")
    if not has_further or before == config.n_layers:
        return
    keys[f"{config.arch}.block_count"] = config.n_layers
    for key, value in keys.items():
        is_list = isinstance(value, np.ndarray | list) and key.startswith(f"{config.arch}.")
        if is_list and len(value) == before:  # type: ignore[arg-type]
            keys[key] = value[: config.n_layers]  # type: ignore[index]


def _described(config: ModelConfig, info: TensorInfo, tensor: Tensor) -> TensorInfo:
    """Returns the tensor as the file has it: vectors in F32, as llama.cpp wants them, and matrices
    of heads as several."""
    qtype = QType.F32 if tensor.is_vector or tensor.is_table else info.qtype
    if qtype not in FILE_TYPE:
        raise ModelFileError(
            f"GGUF has no type for {info.name}, which is {qtype.name}; name another with --type."
        )
    return described(config, replace(info, qtype=qtype), tensor)


def _pieces(source: WeightSource, name: str, tensor: Tensor) -> Iterator[np.ndarray]:
    """Yields the bytes of a tensor in the order of GGUF files."""
    config, info = source.config, source.tensors[name]
    if tensor.is_vector or tensor.is_table:
        values = floats_of(source.read(name), info.qtype)
        yield encode(in_file_order(config, name, values), QType.F32)
    elif (order := file_order(config, name)) is not None:
        yield _reordered(source, info, *order)
    elif info.n_experts > 1:  # a part of the rows would be a part of each expert's
        yield source.read(name)
    else:
        step = max(1, PIECE_BYTES // info.row_bytes)
        for at in range(0, info.rows, step):
            yield source.read(name, range(at, min(at + step, info.rows)))


def _reordered(source: WeightSource, info: TensorInfo, order: np.ndarray, axis: int) -> np.ndarray:
    """Returns a tensor's bytes with its rows or its columns in an order. Raises ModelFileError
    where that would tear blocks."""
    raw = source.read(info.name)
    if axis == 0:
        rows: np.ndarray = raw[order]
        return rows
    try:
        blocks = block_order(order, BLOCK[info.qtype].values)
    except ValueError as error:
        raise ModelFileError(
            f"{info.name} cannot be written as {info.qtype.name}: {error}; name another type with "
            f"--type."
        ) from None
    return np.take(raw.reshape(info.rows, len(blocks), -1), blocks, 1)
