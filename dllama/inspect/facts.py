"""The facts that `dllama inspect` tells of a model, as plain data."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from math import prod
from typing import NamedTuple

from dllama.config import ModelConfig

TOKENIZER_KINDS = {"llama": "SentencePiece", "gpt2": "byte-level BPE"}
"""By `tokenizer.ggml.model`."""

_LAYER = re.compile(r"^(blk|layers|model\.layers)\.\d+\.")


class TensorRow(NamedTuple):
    """One tensor of a file; `dims` begin with the slowest, `n_bytes` is None where unknown."""

    name: str
    dims: tuple[int, ...]
    type_name: str
    n_bytes: int | None


@dataclass(slots=True)
class TensorGroup:
    """The tensors that play one role in all layers. `types` counts tensors by type name;
    `n_bytes` is None where a type is of unknown size."""

    name: str
    dims: list[int]  # rows and columns, or the one size of a vector
    types: dict[str, int] = field(default_factory=dict)
    n_values: int = 0
    n_bytes: int | None = 0


@dataclass(frozen=True, slots=True)
class TokenizerFacts:
    kind: str
    pre: str | None
    n_tokens: int
    bos_id: int | None
    eos_id: int | None


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """The facts that `dllama inspect` shows. `config` is None where the file cannot be run; then
    `unsupported` says why. `tokenizer` is None where the file has none."""

    path: str
    format: str
    n_parts: int
    n_bytes: int
    name: str
    arch: str
    context: int | None
    n_parameters: int
    config: ModelConfig | None
    tokenizer: TokenizerFacts | None
    has_chat_template: bool
    groups: list[TensorGroup]
    unsupported: str | None

    def as_json(self) -> dict[str, object]:
        """The facts as dicts, lists, numbers and strings."""
        return asdict(self)


def group_tensors(rows: Sequence[TensorRow]) -> list[TensorGroup]:
    """Returns one group for each role, in file order; a role with several shapes has several
    groups."""
    groups: dict[tuple[str, tuple[int, ...]], TensorGroup] = {}
    for name, dims, type_name, n_bytes in rows:
        role = _LAYER.sub(r"\1.*.", name)
        group = groups.setdefault((role, dims), TensorGroup(role, list(dims)))
        group.types[type_name] = group.types.get(type_name, 0) + 1
        group.n_values += prod(dims)
        known = group.n_bytes is not None and n_bytes is not None
        group.n_bytes = (group.n_bytes or 0) + (n_bytes or 0) if known else None
    return list(groups.values())
