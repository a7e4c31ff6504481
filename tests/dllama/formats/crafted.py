"""GGUF files that differ from a good one in a single thing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from dllama.formats.gguf import GgufFile
from dllama.formats.writing.gguf_writer import gguf_stream
from dllama.qtypes import QType
from dllama.weight_source import TensorInfo


def rewrite(
    source: Path,
    target: Path,
    *,
    metadata: Mapping[str, object] | None = None,
    drop: tuple[str, ...] = (),
    rename: Mapping[str, str] | None = None,
    reshape: Callable[[TensorInfo], TensorInfo] = lambda info: info,
) -> Path:
    """Copies a GGUF file with metadata added or changed, keys or tensors dropped, tensors renamed
    or described otherwise (bytes are cut or padded with zeros to fit). Returns `target`."""
    file = GgufFile(source)
    kept = {k: v for k, v in file.metadata.items() if k not in drop} | dict(metadata or {})
    tensors = [tensor for name, tensor in file.tensors.items() if name not in drop]
    infos = []
    for tensor in tensors:
        info = TensorInfo(tensor.name, QType(tensor.type_id), tensor.rows, tensor.cols)
        infos.append(reshape(replace(info, name=(rename or {}).get(info.name, info.name))))
    with gguf_stream(target, kept, infos) as out:
        for tensor, info in zip(tensors, infos, strict=True):
            raw = bytearray(tensor.file.buffer[tensor.offset :][: tensor.n_bytes])
            raw = raw[: info.n_bytes] + bytes(max(0, info.n_bytes - len(raw)))
            out.write(np.frombuffer(bytes(raw), np.uint8))
    file.close()
    return target
