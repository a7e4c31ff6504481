"""Which tensors a model has and how large they are, in our names; the same for every format."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from dllama.config import ModelConfig
from dllama.errors import ModelFileError, UnknownTensorType
from dllama.qtypes import COMPUTABLE, QType


def layer_shapes(config: ModelConfig) -> dict[str, tuple[int, int]]:
    """The tensors of one layer by their short names, as (rows, cols); vectors have one row."""
    dim, hidden = config.dim, config.hidden_dim
    shapes = {
        "norm1": (1, dim),
        "wq": (config.q_dim, dim),
        "wk": (config.kv_dim, dim),
        "wv": (config.kv_dim, dim),
        "wo": (dim, config.q_dim),
        "norm2": (1, dim),
        "w1": (hidden, dim),
        "w2": (dim, hidden),
        "w3": (hidden, dim),
    }
    if config.has_qkv_bias:
        shapes |= {"bq": (1, config.q_dim), "bk": (1, config.kv_dim), "bv": (1, config.kv_dim)}
    if config.has_qk_norm:
        shapes |= {"q_norm": (1, config.head_dim), "k_norm": (1, config.head_dim)}
    return shapes


def model_shapes(config: ModelConfig) -> dict[str, tuple[int, int]]:
    """Every tensor of the model by its full name, as (rows, cols)."""
    shapes = {"embed": (config.vocab_size, config.dim), "norm": (1, config.dim)}
    if not config.is_tied:
        shapes["wcls"] = (config.vocab_size, config.dim)
    per_layer = layer_shapes(config)
    for i in range(config.n_layers):
        shapes |= {f"layers.{i}.{name}": shape for name, shape in per_layer.items()}
    return shapes


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
    """The type, where there are kernels for it; otherwise UnknownTensorType names both."""
    if qtype is not None and qtype in COMPUTABLE:
        return qtype
    known = ", ".join(sorted(q.name for q in COMPUTABLE))
    raise UnknownTensorType(
        f"{path}: the tensor {tensor} is stored as {type_name}, which this version cannot "
        f"compute with. Use a model whose tensors are {known}.",
        tensor=tensor,
        qtype=type_name,
    )


def check_shape(
    tensor: str,
    found: tuple[int, int],
    expected: Mapping[str, tuple[int, int]],
    name: str,
    path: Path,
) -> None:
    """Raises ModelFileError where a tensor's (rows, cols) are not what the config implies."""
    if found != expected[name]:
        rows, cols = expected[name]
        raise ModelFileError(
            f"{path}: the tensor {tensor} has {found[0]} rows of {found[1]} values; its metadata "
            f"implies {rows} rows of {cols}. The file is corrupt; download or write it again."
        )
