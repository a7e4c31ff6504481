"""A model whose float weights are quantized as they are read, cut by cut, so that what a rank holds
or is sent has the type that was asked for."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

import numpy as np

from dllama.config import ModelConfig
from dllama.errors import ConfigError, ModelFileError
from dllama.formats import open_model
from dllama.formats.floats import FLOAT_TYPES, floats_of
from dllama.formats.kept_tensors import KeptTensors
from dllama.formats.mapped_source import checked_cut, cut_bytes, cut_of
from dllama.formats.slabs import ENCODED, slabs
from dllama.formats.writing.encode import ENCODABLE, encode
from dllama.host.container import n_cores
from dllama.qtypes import BLOCK, QType, row_bytes
from dllama.quantizing.choice import fitting
from dllama.weight_source import TensorInfo, WeightSource

log = logging.getLogger(__name__)

HEADS = ("embed", "wcls")  # one of them chooses every token: in less than 8 bits they cost the most
KEPT = ("router", "shared_router")  # small, and they choose the experts
TABLES = ("conv_q", "conv_k", "conv_v")  # numbers of channels, which no product reads
MOST_F16 = float(np.finfo(np.float16).max)
ENCODING = 1  # to be raised where the same values become other blocks: digests are kept by it


def type_named(name: str) -> QType:
    """Returns the type that float weights can be made into. Raises ConfigError for others."""
    types = {qtype.name.lower(): qtype for qtype in ENCODABLE}
    if name.lower() not in types:
        raise ConfigError(
            f"weights cannot be made into {name[:40]!r}; the types are {', '.join(types)}"
        )
    return types[name.lower()]


class QuantizedSource:
    """A WeightSource over another, with its float matrices in one type. What is quantized in the
    files stays as it is: nothing is quantized twice. Vectors stay too; matrices whose rows are no
    whole blocks get a type of smaller ones, or stay; the embedding and the head become Q8_0 at
    least."""

    def __init__(
        self, source: WeightSource, qtype: QType, keeps_bytes: int = 0, *, is_exact: bool = False
    ) -> None:
        """`qtype` is one that there is an encoder for; weights of no more bits stay as they are,
        unless the type `is_exact`ly what is wanted. Where several ranks read, up to
        `keeps_bytes` of what was made are kept, so that it is not made for each of them."""
        self._source, self._qtype, self._is_exact = source, qtype, is_exact
        self._tensors = {name: self._made(info) for name, info in source.tensors.items()}
        self._pool = ThreadPoolExecutor(n_cores(), "quantize")
        self._kept = KeptTensors(keeps_bytes)
        odd = [
            name
            for name, info in self._tensors.items()
            if info.qtype in FLOAT_TYPES
            and info.rows > info.n_experts
            and info.short_name not in (*KEPT, *TABLES)
        ]
        if odd and qtype not in FLOAT_TYPES:
            log.warning(
                "%d matrices, such as %s, stay as they are: their rows are no whole blocks of %s",
                len(odd), odd[0], qtype.name,
            )  # fmt: skip

    @property
    def config(self) -> ModelConfig:
        return self._source.config

    @property
    def tensors(self) -> Mapping[str, TensorInfo]:
        return MappingProxyType(self._tensors)

    @property
    def stamp(self) -> str:
        stamp = self._source.stamp
        return f"{stamp}\nas {self._qtype.name} {ENCODING}" if stamp else ""

    def read(self, name: str, rows: range | None = None, cols: range | None = None) -> np.ndarray:
        made, stored = self._tensors[name], self._source.tensors[name]
        if made == stored:
            return self._source.read(name, rows, cols)
        rows = checked_cut(rows, made.rows // made.n_experts, f"rows of {name}")
        cols = checked_cut(cols, made.cols, f"columns of {name}")
        cut_bytes(made, cols)  # raises where they are no whole blocks
        whole = self._kept.get(name)
        if whole is None and (made.n_experts > 1 or self._kept.has_room(made.n_bytes)):
            whole = self._encoded(self._source.read(name), stored, made.qtype)
            self._kept.put(name, whole)
        if whole is None:
            return self._encoded(self._source.read(name, rows, cols), stored, made.qtype)
        return cut_of(whole, made, rows, cols)

    def _encoded(self, raw: np.ndarray, stored: TensorInfo, qtype: QType) -> np.ndarray:
        """Returns raw rows of plain numbers as blocks."""
        n_values = raw.shape[1] // BLOCK[stored.qtype].bytes
        out = np.empty((len(raw), row_bytes(qtype, n_values)), np.uint8)

        def encode_slab(slab: slice) -> None:
            values = floats_of(raw[slab], stored.qtype)
            if qtype is QType.F16 and stored.qtype is not qtype and np.abs(values).max() > MOST_F16:
                raise ModelFileError(
                    f"{stored.name} has numbers beyond {MOST_F16:g}, which F16 cannot hold; name "
                    "another type, such as bf16"
                )
            out[slab] = encode(values, qtype)

        if raw.size:
            list(self._pool.map(encode_slab, slabs(len(raw), n_values, ENCODED)))
        return out

    def release(self, name: str) -> None:
        self._kept.release(name)
        self._source.release(name)

    def drop_kept(self) -> None:
        self._kept.drop()
        self._source.drop_kept()

    def close(self) -> None:
        self._pool.shutdown()
        self._source.close()

    def _made(self, info: TensorInfo) -> TensorInfo:
        """Returns what becomes of a tensor."""
        if info.qtype not in FLOAT_TYPES or info.rows // info.n_experts == 1:
            return info
        if info.short_name in (*KEPT, *TABLES):
            return info
        qtype = self._qtype
        if info.short_name in HEADS and _bits(qtype) < _bits(QType.Q8_0):
            qtype = QType.Q8_0
        qtype = fitting(qtype, info.cols)
        if self._is_exact and qtype in FLOAT_TYPES:
            return replace(info, qtype=qtype)
        return info if _bits(qtype) >= _bits(info.qtype) else replace(info, qtype=qtype)


def _bits(qtype: QType) -> float:
    """Returns the bits of a value."""
    return 8 * BLOCK[qtype].bytes / BLOCK[qtype].values


def open_weights(
    path: str | Path, type_name: str | None, *, keeps_bytes: int = 0, is_exact: bool = False
) -> WeightSource:
    """Opens a model, with its float weights in the type that is named, as they are where none is;
    `keeps_bytes` and `is_exact` are those of QuantizedSource. Raises ConfigError where there is no
    such type, and as open_model does."""
    qtype = None if type_name is None else type_named(type_name)
    source = open_model(path)
    return (
        source if qtype is None else QuantizedSource(source, qtype, keeps_bytes, is_exact=is_exact)
    )
