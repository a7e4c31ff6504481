"""The experts of a layer where a checkpoint has them in two tensors: (experts, outputs, inputs),
the gates of each expert above its other half in the one, what follows in the other."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

from dllama.errors import ModelFileError
from dllama.formats.checkpoint.folder import WeightFiles
from dllama.formats.mapped_source import Placement, Stored
from dllama.formats.stored_views import PartOf
from dllama.qtypes import QType
from dllama.weight_source import TensorInfo

EXPERT = ".{e}."  # the number of an expert in a name


class _Part(NamedTuple):
    """Which of the parts of a tensor, one above the other, a matrix is."""

    tensor: str
    number: int
    n_parts: int


_PARTS = {
    "gate_proj.weight": _Part("gate_up_proj", 0, 2),
    "up_proj.weight": _Part("gate_up_proj", 1, 2),
    "down_proj.weight": _Part("down_proj", 0, 1),
}


def fused_tensor(
    files: WeightFiles, info: TensorInfo, theirs: str, types: dict[str, QType]
) -> tuple[Stored, str] | None:
    """Returns how the matrices of all experts are read, which checkpoints mostly have one by one by
    the name `theirs`, and the name of the tensor that holds them; None where there is none. The
    type that `info` names does not count. Raises ModelFileError for other shapes."""
    base, _, which = theirs.partition(EXPERT)
    part = _PARTS.get(which)
    found = None if part is None else files.tensors.get(f"{base}.{part.tensor}")
    if part is None or found is None:
        return None
    rows = info.rows // info.n_experts
    shape = (info.n_experts, rows * part.n_parts, info.cols)
    if found.shape != shape or found.dtype not in types:
        raise ModelFileError(
            f"{files.folder}: the tensor {found.name} is {found.dtype} {list(found.shape)}; "
            f"expected {' or '.join(types)} {list(shape)}. Use another model."
        )
    made = replace(info, qtype=types[found.dtype])
    whole = replace(made, rows=info.rows * part.n_parts)
    stored = PartOf(made, Placement(whole, found.file, found.offset), part.number * rows)
    return stored, f"{base}.{part.tensor}"
