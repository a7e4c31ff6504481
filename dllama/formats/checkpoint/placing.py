"""Where one of our tensors lies in a checkpoint, and as what it is read: plain numbers as they are,
quantized ones as one of our types where that is exact."""

from __future__ import annotations

from collections.abc import Mapping

from dllama.config import ModelConfig
from dllama.errors import ModelFileError, UnknownTensorType
from dllama.formats.checkpoint.folder import WeightFiles
from dllama.formats.layout import check_shape
from dllama.formats.mapped_source import Placement, Stored
from dllama.formats.safetensors import StoredTensor
from dllama.models.tensors import Tensor
from dllama.qtypes import QType
from dllama.weight_source import TensorInfo

FLOATS = {"F32": QType.F32, "F16": QType.F16, "BF16": QType.BF16}


def placed(
    files: WeightFiles,
    said: Mapping[str, object],
    theirs: str,
    name: str,
    tensor: Tensor,
    config: ModelConfig,
) -> tuple[Stored, set[str]]:
    """Returns how one of our tensors is read, and the names of the tensors that it is made of."""
    found = files.tensors.get(theirs)
    if found is None:
        raise missing(files, theirs)
    qtype = FLOATS.get(found.dtype)
    if qtype is None:
        raise UnknownTensorType(
            f"{files.folder}: the tensor {theirs} is stored as {found.dtype}; this version reads "
            f"{', '.join(FLOATS)}. Use a model whose tensors are of these types.",
            tensor=theirs,
            qtype=found.dtype,
        )
    _check_dims(files, found)
    check_shape(theirs, (found.rows, found.cols), tensor.shape(config), found.file.path)
    info = TensorInfo(name, qtype, found.rows, found.cols, n_experts=tensor.n_experts(config))
    return Placement(info, found.file, found.offset), {theirs}


def missing(files: WeightFiles, theirs: str) -> ModelFileError:
    """The error where a tensor of the family is not among those of the files."""
    return ModelFileError(
        f"{files.folder} has no tensor {theirs!r}; it holds {len(files.tensors)} others, such as "
        f"{min(files.tensors, default='none')!r}. The model is incomplete or of another kind than "
        f"its config.json says."
    )


def _check_dims(files: WeightFiles, found: StoredTensor) -> None:
    if not 1 <= len(found.shape) <= 2 or 0 in found.shape:
        raise ModelFileError(
            f"{files.folder}: the tensor {found.name} has the shape {list(found.shape)}; a vector "
            f"or a matrix is expected. Use another model."
        )
