"""Checks of a model's config and tensors that hold for every file format."""

from __future__ import annotations

from pathlib import Path

from dllama.config import ModelConfig
from dllama.errors import ModelFileError, UnknownTensorType
from dllama.qtypes import COMPUTABLE, QType


def check_heads(config: ModelConfig, path: Path) -> None:
    """Raises ModelFileError where heads do not divide into groups, or a head not into pairs."""
    if config.n_heads % config.n_kv_heads:
        raise ModelFileError(
            f"{path}: {config.n_heads} heads cannot share {config.n_kv_heads} key/value heads "
            f"evenly; the file is corrupt, or of a kind this version does not support."
        )
    if config.head_dim % 2:
        raise ModelFileError(
            f"{path}: heads of {config.head_dim} values have no rotary pairs; expected an even "
            f"number. The file is corrupt, or of a kind this version does not support."
        )


def require_computable(qtype: QType | None, type_name: str, tensor: str, path: Path) -> QType:
    """Returns the type if there are kernels for it. Otherwise raises UnknownTensorType, which names
    tensor and type."""
    if qtype is not None and qtype in COMPUTABLE:
        return qtype
    known = ", ".join(sorted(q.name for q in COMPUTABLE))
    raise UnknownTensorType(
        f"{path}: the tensor {tensor} is stored as {type_name}, which this version cannot "
        f"compute with. Use a model whose tensors are {known}.",
        tensor=tensor,
        qtype=type_name,
    )


def check_shape(tensor: str, found: tuple[int, int], expected: tuple[int, int], path: Path) -> None:
    """Raises ModelFileError where a tensor's (rows, cols) are not what the config implies."""
    if found != expected:
        rows, cols = expected
        raise ModelFileError(
            f"{path}: the tensor {tensor} has {found[0]} rows of {found[1]} values; its metadata "
            f"implies {rows} rows of {cols}. The file is corrupt; download or write it again."
        )
