"""A GGUF file as a WeightSource: their tensor names become ours here, and RoPE order too."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from dllama.config import ModelConfig
from dllama.errors import ModelFileError
from dllama.formats.gguf import GgufFile, GgufTensor
from dllama.formats.gguf_config import ARCHITECTURES, ROPE_FACTORS, model_config
from dllama.formats.layout import check_shape, model_shapes, require_computable
from dllama.formats.mapped_source import MappedSource, Placement
from dllama.weight_source import TensorInfo

NAMES: dict[str, str] = {
    "token_embd.weight": "embed",
    "output_norm.weight": "norm",
    "output.weight": "wcls",
    "blk.{i}.attn_norm.weight": "layers.{i}.norm1",
    "blk.{i}.attn_q.weight": "layers.{i}.wq",
    "blk.{i}.attn_k.weight": "layers.{i}.wk",
    "blk.{i}.attn_v.weight": "layers.{i}.wv",
    "blk.{i}.attn_q.bias": "layers.{i}.bq",
    "blk.{i}.attn_k.bias": "layers.{i}.bk",
    "blk.{i}.attn_v.bias": "layers.{i}.bv",
    "blk.{i}.attn_q_norm.weight": "layers.{i}.q_norm",
    "blk.{i}.attn_k_norm.weight": "layers.{i}.k_norm",
    "blk.{i}.attn_output.weight": "layers.{i}.wo",
    "blk.{i}.ffn_norm.weight": "layers.{i}.norm2",
    "blk.{i}.ffn_gate.weight": "layers.{i}.w1",
    "blk.{i}.ffn_down.weight": "layers.{i}.w2",
    "blk.{i}.ffn_up.weight": "layers.{i}.w3",
}
"""GGUF's names and ours."""

THEIRS = {ours: theirs for theirs, ours in NAMES.items()}

INTERLEAVED = frozenset({"wq", "wk", "bq", "bk"})
"""What carries RoPE pairs, where an architecture stores them side by side."""

UNUSED = frozenset({ROPE_FACTORS, "blk.{i}.attn_rot_embd.weight", "blk.{i}.attn_rot_embd"})
"""Tensors that are read elsewhere, or that hold what every reader computes for itself."""

_LAYER = re.compile(r"^(blk|layers)\.(\d+)\.")


class GgufSource(MappedSource):
    """The weights and the metadata of a GGUF model of a known architecture.

    Raises ModelFileError where the file is damaged, or is no model that this version computes
    (UnknownTensorType where only a tensor's type stands in the way).
    """

    def __init__(self, path: str | Path) -> None:
        self.file = GgufFile(path)
        try:
            config = model_config(self.file)
            super().__init__(config, _placements(self.file, config), self.file.parts)
        except BaseException:
            self.file.close()
            raise

    @property
    def metadata(self) -> Mapping[str, object]:
        """The metadata with the file's own keys; see GgufMetadata."""
        return self.file.metadata


def their_name(ours: str) -> str:
    """GGUF's name of one of our tensors: `layers.3.wq` is `blk.3.attn_q.weight`."""
    pattern, layer = _split_layer(ours)
    return THEIRS[pattern].replace("{i}", layer)


def _split_layer(name: str) -> tuple[str, str]:
    """A name with its layer number as `{i}`, and the number; "" where it has none."""
    match = _LAYER.match(name)
    if not match:
        return name, ""
    return f"{match[1]}.{{i}}.{name[match.end() :]}", match[2]


def _placements(file: GgufFile, config: ModelConfig) -> list[Placement]:
    shapes = model_shapes(config)
    _refuse_strangers(file, shapes)
    return [_placement(file, config, name, shapes) for name in shapes]


def _refuse_strangers(file: GgufFile, shapes: Mapping[str, object]) -> None:
    """A tensor nobody would use (an output bias, a scale) means that results would be wrong."""
    for theirs in file.tensors:
        pattern, layer = _split_layer(theirs)
        ours = NAMES.get(pattern, "").replace("{i}", layer)
        if ours not in shapes and pattern not in UNUSED:
            raise ModelFileError(
                f"{file.path}: the tensor {theirs!r} belongs to nothing that this version "
                f"computes, so its results would be wrong. Use another model."
            )


def _placement(
    file: GgufFile, config: ModelConfig, name: str, shapes: Mapping[str, tuple[int, int]]
) -> Placement:
    tensor: GgufTensor = file.tensor(their_name(name))
    qtype = require_computable(tensor.qtype, tensor.type_name, tensor.name, file.path)
    check_shape(tensor.name, (tensor.rows, tensor.cols), shapes, name, file.path)
    info = TensorInfo(name, qtype, tensor.rows, tensor.cols)
    has_pairs = name.rpartition(".")[2] in INTERLEAVED
    is_interleaved = has_pairs and ARCHITECTURES[config.arch].is_interleaved
    head_dim = config.head_dim if is_interleaved else 0
    return Placement(info, tensor.file, tensor.offset, head_dim)
