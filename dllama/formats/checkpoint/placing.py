"""Where one of our tensors lies in a checkpoint, and as what it is read: plain numbers as they are,
quantized ones as one of our types that holds them exactly."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

from dllama.config import ModelConfig
from dllama.errors import ModelFileError, UnknownTensorType
from dllama.formats.checkpoint.folder import WeightFiles
from dllama.formats.checkpoint.fp8 import DTYPE as FP8
from dllama.formats.checkpoint.fp8 import fp8_tensor
from dllama.formats.checkpoint.fused_experts import fused_tensor
from dllama.formats.checkpoint.int4 import int4_tensor
from dllama.formats.checkpoint.joint_experts import Turns, joint_tensor
from dllama.formats.checkpoint.stacked import Stacked
from dllama.formats.layout import check_shape
from dllama.formats.mapped_source import Placement, Stored
from dllama.formats.rope_order import RotaryPairs
from dllama.formats.safetensors import StoredTensor
from dllama.formats.stored_orders import changed, ordered
from dllama.formats.stored_views import Named, half_split, joint_shape, parts_of
from dllama.models import FAMILIES
from dllama.qtypes import QType
from dllama.weight_source import TensorInfo

FLOATS = {"F32": QType.F32, "F16": QType.F16, "BF16": QType.BF16}
EXPERT = "{e}"  # stands for the number of an expert in a name
DEFAULT_BLOCK = (128, 128)
_LAYER = re.compile(r"^model\.layers\.\d+\.")


class Placing:
    """Finds tensors in the files of a checkpoint. `used` are the names of all those found."""

    def __init__(self, files: WeightFiles, said: Mapping[str, object], config: ModelConfig) -> None:
        """`said` is the config.json."""
        quantization = said.get("quantization_config")
        self._files, self._config = files, config
        self._said: Mapping[str, object] = quantization if isinstance(quantization, dict) else {}
        self.used: set[str] = set()

    def find(self, theirs: str, parts: Sequence[Named]) -> list[Stored]:
        """Returns how those of our tensors are read that a stored one holds, which the checkpoint
        calls `theirs`. Raises ModelFileError where it is missing or of another shape,
        UnknownTensorType."""
        family, folder = FAMILIES[self._config.arch], self._files.folder
        named = _LAYER.sub("", theirs)
        whole = changed(self._whole(theirs, parts), family.hf_changes.get(named), folder)
        whole = ordered(whole, family.hf_orders.get(named), self._config, folder)
        found = parts_of(self._config, whole, parts)
        pairs = RotaryPairs(self._config.head_dim, self._config.rotary_dim)
        return [
            half_split(stored, pairs, folder)
            if family.is_hf_interleaved and tensor.has_pairs
            else stored
            for stored, (_, tensor) in zip(found, parts, strict=True)
        ]

    def _whole(self, theirs: str, parts: Sequence[Named]) -> Stored:
        name, tensor = parts[0]
        n_experts = tensor.n_experts(self._config)
        rows, cols = joint_shape(self._config, parts)
        is_turned = tensor.experts is not None and not theirs.endswith(".weight")
        if EXPERT not in theirs and is_turned:
            return self._joint(theirs, TensorInfo(name, QType.F32, rows, cols, n_experts=n_experts))
        if EXPERT not in theirs:
            return self._part(theirs, name, (rows, cols), n_experts, is_table=tensor.is_table)
        info = TensorInfo(name, QType.F32, rows, cols, n_experts=n_experts)
        if (fused := fused_tensor(self._files, info, theirs, FLOATS)) is not None:
            self.used.add(fused[1])
            return fused[0]
        experts = tuple(
            self._part(theirs.replace(EXPERT, str(e)), name, (rows // n_experts, cols))
            for e in range(n_experts)
        )
        types = {each.info.qtype for each in experts}
        if len(types) > 1:
            raise ModelFileError(
                f"{self._files.folder}: the experts of {theirs} are stored in different types; "
                f"expected one. Use another model."
            )
        return Stacked(replace(info, qtype=types.pop()), experts)

    def _joint(self, theirs: str, info: TensorInfo) -> Stored:
        found = joint_tensor(self._files, info, theirs, FLOATS)
        if found is None:
            raise missing(self._files, Turns.of(theirs).name)
        stored, used = found
        self.used |= used
        return stored

    def _part(
        self, theirs: str, name: str, shape: tuple[int, int], n_experts: int = 1, *,
        is_table: bool = False,
    ) -> Stored:  # fmt: skip
        files = self._files
        found = files.tensors.get(theirs)
        base = theirs.removesuffix("weight")
        if found is None and base + "qweight" in files.tensors:
            packed, used = int4_tensor(files, self._said, base, name, shape)
            self.used |= used
            return packed
        if found is None:
            raise missing(files, theirs)
        known = FLOATS if n_experts > 1 else (*FLOATS, FP8)
        if found.dtype not in known:
            raise UnknownTensorType(
                f"{files.folder}: the tensor {theirs} is stored as {found.dtype}; this version "
                f"reads {', '.join(known)}. Use a model whose tensors are of these types.",
                tensor=theirs,
                qtype=found.dtype,
            )
        if not is_table:
            _check_dims(files, found, n_experts)
        is_flat = shape[0] == 1  # a vector, whatever dimensions it is stored in
        rows, cols = (1, found.rows * found.cols) if is_flat else (found.rows, found.cols)
        check_shape(theirs, (rows, cols), shape, found.file.path)
        if found.dtype == FP8:
            scaled, used = fp8_tensor(files, found, name, self._block())
            self.used |= used
            return scaled
        self.used.add(theirs)
        info = TensorInfo(name, FLOATS[found.dtype], rows, cols, n_experts=n_experts)
        return Placement(info, found.file, found.offset)

    def _block(self) -> tuple[int, int]:
        """Returns the sides of the blocks of 8-bit floats."""
        said = self._said.get("weight_block_size")
        if (
            isinstance(said, list)
            and len(said) == 2
            and all(type(n) is int and n > 0 for n in said)
        ):
            return said[0], said[1]
        return DEFAULT_BLOCK


def missing(files: WeightFiles, theirs: str) -> ModelFileError:
    """The error where a tensor of the family is not among those of the files."""
    return ModelFileError(
        f"{files.folder} has no tensor {theirs!r}; it holds {len(files.tensors)} others, such as "
        f"{min(files.tensors, default='none')!r}. The model is incomplete or of another kind than "
        f"its config.json says."
    )


def _check_dims(files: WeightFiles, found: StoredTensor, n_experts: int) -> None:
    n_dims = len(found.shape)
    is_sound = 1 <= n_dims <= 2 if n_experts == 1 else n_dims == 3 and found.shape[0] == n_experts
    if not is_sound or 0 in found.shape:
        expected = "a vector or a matrix" if n_experts == 1 else f"{n_experts} matrices"
        raise ModelFileError(
            f"{files.folder}: the tensor {found.name} has the shape {list(found.shape)}; expected "
            f"{expected}. Use another model."
        )
