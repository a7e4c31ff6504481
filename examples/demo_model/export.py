"""Writes the trained model as GGUF files that dllama, and llama.cpp, read."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from dllama.config import ModelConfig
from dllama.formats.writing.encode import encode
from dllama.formats.writing.gguf_export import in_file_order, model_stream
from dllama.models import model_shapes
from dllama.qtypes import QType

DESCRIPTION = "A very small chat model that knows dllama, trained on text of its own project."


def export_gguf(
    path: Path,
    config: ModelConfig,
    tensors: Mapping[str, np.ndarray],
    tokenizer: Mapping[str, object],
    qtype: QType,
) -> None:
    """Writes float32 `tensors` (rows, cols), by our names, with matrices as `qtype` and norms as
    F32. The file appears only when it is complete."""
    shapes = model_shapes(config)

    def qtype_of(name: str) -> QType:
        return QType.F32 if shapes[name][0] == 1 else qtype

    metadata = {
        "general.description": DESCRIPTION,
        "general.license": "mit",
        "general.size_label": f"{count_parameters(config) / 1e6:.1f}M",
        **tokenizer,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    with model_stream(path, config, qtype, qtype_of, metadata) as out:
        for name, shape in shapes.items():
            values = tensors[name]
            if values.shape != shape:
                raise ValueError(f"{name} has the shape {values.shape}; expected {shape}")
            out.write(encode(in_file_order(config, name, values), qtype_of(name)))


def count_parameters(config: ModelConfig) -> int:
    return sum(rows * cols for rows, cols in model_shapes(config).values())
