"""Checks the manifest, the list of a rank's tensors, before they arrive: kernels index memory by
it."""

from __future__ import annotations

from collections.abc import Sequence

from dllama.config import ModelConfig
from dllama.errors import ModelFileError
from dllama.models import FAMILIES
from dllama.models.tensors import Axis, Tensor
from dllama.sharding.units import HEAD_AXES, head_widths
from dllama.weight_source import TensorInfo

WHOLE = (
    Axis.DIM, Axis.HEAD, Axis.EXPERTS, Axis.SHARED_GATE, Axis.DELTA_HEAD, Axis.CONV, Axis.NOPE,
    Axis.KV_RANK, Axis.Q_RANK, Axis.LATENT,
)  # fmt: skip
"""Axes that no plan cuts."""


def table_of(config: ModelConfig, layer: int) -> dict[str, Tensor]:
    """Returns the table rows of one layer by their short names."""
    return {t.name: t for t in FAMILIES[config.arch].layer_tensors(config, layer)}


def manifest_by_layer(
    config: ModelConfig, manifest: Sequence[TensorInfo]
) -> list[list[TensorInfo]]:
    """Returns the tensors of each layer, in the manifest's order.

    Raises ModelFileError for tensors that the family does not have, or whose sizes fit neither
    the config nor each other.
    """
    layers: list[list[TensorInfo]] = [[] for _ in range(config.n_layers)]
    for info in manifest:
        if info.layer is None:
            continue
        if not 0 <= info.layer < config.n_layers or info.short_name not in table_of(
            config, info.layer
        ):
            raise ModelFileError(
                f"the tensor {info.name} belongs to no {config.arch} model of {config.n_layers} "
                "layers; the file is damaged, or the nodes run different versions of dllama"
            )
        layers[info.layer].append(info)
    for index, infos in enumerate(layers):
        _check_layer(config, table_of(config, index), infos)
    return layers


def _check_layer(config: ModelConfig, table: dict[str, Tensor], infos: list[TensorInfo]) -> None:
    held: dict[Axis, int] = {}  # what this rank computes of heads and hidden columns
    for info in infos:
        tensor = table[info.short_name]
        if info.n_experts != tensor.n_experts(config):
            raise ModelFileError(
                f"{info.name} has {info.n_experts} matrices, and {tensor.n_experts(config)} are "
                "expected. The model file or the transfer is damaged"
            )
        rows = tensor.rows
        if rows is not None:
            _check_side(config, info, rows, info.rows // info.n_experts, held)
    for info in infos:
        tensor = table[info.short_name]
        _check_own(info, is_cut=not tensor.is_vector)
        _check_side(config, info, tensor.cols, len(info.own_cols), held)
    _check_heads(config, held)


def _check_own(info: TensorInfo, *, is_cut: bool) -> None:
    """Checks which columns are this rank's; of vectors they are all that come."""
    own = info.own_cols
    if not info.is_cut_between_runs or (not is_cut and len(own) < info.cols):
        raise ModelFileError(
            f"{info.name} has {info.cols} columns, of which this node computes those from "
            f"{own.start} to {own.stop}. The model file or the transfer is damaged"
        )


def _check_heads(config: ModelConfig, held: dict[Axis, int]) -> None:
    """Checks that all tensors of a layer are of as many heads."""
    widths = head_widths(config)
    counts = {axis: held[axis] / widths[axis] for axis in HEAD_AXES if axis in held}
    if len(set(counts.values())) > 1 or not all(count.is_integer() for count in counts.values()):
        said = ", ".join(f"{held[axis]} values along {axis}" for axis in counts)
        raise ModelFileError(
            f"the tensors of a layer have {said}; expected those of as many heads. The model file "
            "or the transfer is damaged"
        )


def _check_side(
    config: ModelConfig, info: TensorInfo, axis: Axis, size: int, held: dict[Axis, int]
) -> None:
    """Checks one side of a tensor: it is as the config says or, if cut, as in the layer's other
    tensors."""
    is_whole = axis in WHOLE
    expected = axis.size(config) if is_whole else held.setdefault(axis, size)
    if size != expected:
        raise ModelFileError(
            f"{info.name} has {size} values along {axis}, and {expected} are expected. The model "
            "file or the transfer is damaged"
        )
