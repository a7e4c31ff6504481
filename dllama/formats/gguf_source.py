"""A GGUF file as a WeightSource: translates tensor names, and the order of rotary rows, to ours."""

from __future__ import annotations

import re
from collections.abc import Container, Mapping, Sequence
from pathlib import Path

from dllama.config import ModelConfig
from dllama.errors import ModelFileError
from dllama.formats.fused_names import fused, is_fused
from dllama.formats.gguf import GgufFile, GgufTensor
from dllama.formats.gguf_config import FACTORS, N_FURTHER, described, model_config
from dllama.formats.gguf_metadata import ArchKeys
from dllama.formats.layout import check_shape, require_computable
from dllama.formats.mapped_source import MappedSource, Placement, Stored
from dllama.formats.rope_order import RotaryPairs
from dllama.formats.stored_orders import ordered
from dllama.formats.stored_views import (
    Named,
    by_stored_name,
    half_split,
    joint_shape,
    parts_of,
)
from dllama.models import FAMILIES
from dllama.models.tensors import Tensor
from dllama.weight_source import TensorInfo

UNUSED = frozenset({*FACTORS, "blk.{i}.attn_rot_embd.weight", "blk.{i}.attn_rot_embd"})
"""Tensors that are read elsewhere, or that hold what every reader computes for itself."""

_LAYER = re.compile(r"^blk\.(\d+)\.")
_OLD_EXPERT = re.compile(r"^blk\.\d+\.ffn_(gate|up|down)\.\d+\.weight$")


class GgufSource(MappedSource):
    """The weights and the metadata of a GGUF model of a known architecture.

    Raises ModelFileError where the file is damaged, or is no model that this version computes
    (UnknownTensorType where only a tensor's type stands in the way).
    """

    def __init__(self, path: str | Path) -> None:
        self.file = GgufFile(path)
        try:
            config = model_config(described(self.file))
            super().__init__(config, _stored(self.file, config), self.file.parts)
        except BaseException:
            self.file.close()
            raise

    @property
    def metadata(self) -> Mapping[str, object]:
        """The metadata with the file's own keys; see GgufMetadata."""
        return self.file.metadata


def their_name(name: str, tensor: Tensor) -> str:
    """GGUF's name of one of our tensors: `layers.3.wq` is `blk.3.attn_q.weight`."""
    prefix, _, rest = name.partition(".")
    return f"blk.{rest.partition('.')[0]}.{tensor.gguf}" if prefix == "layers" else tensor.gguf


def _stored(file: GgufFile, config: ModelConfig) -> list[Stored]:
    family = FAMILIES[config.arch]

    def as_stored(name: str, row: Tensor) -> Tensor:
        others = [family.as_stored(row), row, fused(row)]
        return next((each for each in others if their_name(name, each) in file.tensors), row)

    together = by_stored_name(config, their_name, as_stored)
    n_further = ArchKeys(file.metadata, config.arch, file.path).count(N_FURTHER)
    _refuse_unused(file, together, range(config.n_layers, config.n_layers + n_further))
    return [
        _in_our_order(file, config, part, tensor)
        for theirs, parts in together.items()
        for part, (_, tensor) in zip(
            parts_of(config, _whole(file, config, theirs, parts), parts), parts, strict=True
        )
    ]


def _whole(file: GgufFile, config: ModelConfig, theirs: str, parts: Sequence[Named]) -> Stored:
    tensor = parts[0][1]
    # One that holds several of ours may be called as another layer's tensor of another order is.
    orders = {} if is_fused(tensor) else FAMILIES[config.arch].gguf_orders
    order = orders.get(tensor.gguf)
    return ordered(_placement(file, config, theirs, parts), order, config, file.path)


def _refuse_unused(file: GgufFile, known: Container[str], further: range) -> None:
    """Raises ModelFileError for tensors that the family does not use (an output bias, a scale):
    without them the results would be wrong. Those of `further` layers are left out."""
    for theirs in file.tensors:
        layer = _LAYER.match(theirs)
        if layer is not None and int(layer[1]) in further:
            continue
        if _OLD_EXPERT.match(theirs):
            raise ModelFileError(
                f"{file.path}: {theirs!r} is the matrix of a single expert, as files before April "
                f"2024 have them; expected those of all experts in one tensor. Convert the model "
                f"again with a current converter."
            )
        if theirs not in known and _LAYER.sub("blk.{i}.", theirs) not in UNUSED:
            raise ModelFileError(
                f"{file.path}: the tensor {theirs!r} belongs to nothing that this version "
                f"computes, so its results would be wrong. Use another model."
            )


def _placement(
    file: GgufFile, config: ModelConfig, theirs: str, parts: Sequence[Named]
) -> Placement:
    found: GgufTensor = file.tensor(theirs)
    qtype = require_computable(found.qtype, found.type_name, theirs, file.path)
    name, tensor = parts[0]
    # Vectors are taken in whatever dimensions they are stored.
    rows, cols = (1, found.n_values) if tensor.is_flat else (found.rows, found.cols)
    check_shape(theirs, (rows, cols), joint_shape(config, parts), file.path)
    info = TensorInfo(name, qtype, rows, cols, n_experts=tensor.n_experts(config))
    return Placement(info, found.file, found.offset)


def _in_our_order(file: GgufFile, config: ModelConfig, stored: Stored, tensor: Tensor) -> Stored:
    if not tensor.has_pairs or not FAMILIES[config.arch].is_interleaved:
        return stored
    return half_split(stored, RotaryPairs(config.head_dim, config.rotary_dim), file.path)
