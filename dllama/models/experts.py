"""Mixtures of experts: the rows of their tables, their metadata, and their half layer. Of many
feed-forwards each token takes a few, by the weights that a router gives them.

Written in terms of `Ops`, as blocks.py is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from dllama.config import Gating, ModelConfig
from dllama.errors import ModelFileError
from dllama.models.blocks import FEED_FORWARD, begin_feed_forward, end_feed_forward
from dllama.models.family import HalfLayer
from dllama.models.tensors import Axis, Tensor

if TYPE_CHECKING:
    from dllama.formats.gguf_metadata import ArchKeys
    from dllama.runtime.layer import Layer
    from dllama.runtime.ops import Ops

GATING_NUMBERS = {Gating.SOFTMAX: 1, Gating.SIGMOID: 2}
"""llama.cpp's numbers of the functions that make weights of a router's logits; it has none of
SparseMixer."""


def has_experts(config: ModelConfig, layer: int) -> bool:
    """The condition of a tensor of mixtures."""
    return config.is_mixture(layer)


def is_dense(config: ModelConfig, layer: int) -> bool:
    """The condition of a tensor of layers without experts."""
    return not config.is_mixture(layer)


def has_shared(config: ModelConfig, layer: int) -> bool:
    """The condition of a tensor of the shared expert."""
    return config.is_mixture(layer) and config.shared_hidden_dim > 0


def has_choice_bias(config: ModelConfig, layer: int) -> bool:
    """The condition of a bias of the choice of experts."""
    return config.is_mixture(layer) and config.has_choice_bias


def _n_experts(config: ModelConfig) -> int:
    return config.n_experts


ROUTER = Tensor("router", "ffn_gate_inp.weight", "mlp.gate.weight", Axis.EXPERTS, Axis.DIM,
                "routers", when=has_experts)  # fmt: skip
"""A row for each expert."""

CHOICE_BIAS = Tensor("choice_bias", "exp_probs_b.bias", "mlp.gate.e_score_correction_bias", None,
                     Axis.EXPERTS, when=has_choice_bias)  # fmt: skip
"""What is added to the scores by which experts are chosen."""

EXPERTS = (
    Tensor("expert_w1", "ffn_gate_exps.weight", "mlp.experts.{e}.gate_proj.weight", Axis.HIDDEN,
           Axis.DIM, "expert_gate_up", experts=_n_experts, when=has_experts),
    Tensor("expert_w3", "ffn_up_exps.weight", "mlp.experts.{e}.up_proj.weight", Axis.HIDDEN,
           Axis.DIM, "expert_gate_up", experts=_n_experts, when=has_experts),
    Tensor("expert_w2", "ffn_down_exps.weight", "mlp.experts.{e}.down_proj.weight", Axis.DIM,
           Axis.HIDDEN, experts=_n_experts, when=has_experts),
)  # fmt: skip

SHARED_GATE = Tensor("shared_router", "ffn_gate_inp_shexp.weight", "mlp.shared_expert_gate.weight",
                     Axis.SHARED_GATE, Axis.DIM, "routers", when=has_shared)  # fmt: skip
"""The row that weighs the expert that all rows take."""

SHARED = (
    Tensor("shared_w1", "ffn_gate_shexp.weight", "mlp.shared_expert.gate_proj.weight", Axis.SHARED,
           Axis.DIM, "shared_gate_up", when=has_shared),
    Tensor("shared_w3", "ffn_up_shexp.weight", "mlp.shared_expert.up_proj.weight", Axis.SHARED,
           Axis.DIM, "shared_gate_up", when=has_shared),
    Tensor("shared_w2", "ffn_down_shexp.weight", "mlp.shared_expert.down_proj.weight", Axis.DIM,
           Axis.SHARED, when=has_shared),
)  # fmt: skip
"""An expert that all rows take."""

SHARED_EXPERTS = tuple(
    replace(tensor, hf=tensor.hf.replace("shared_expert", "shared_experts")) for tensor in SHARED
)
"""The same under the name that it has where it is said to be several, side by side."""

DENSE = tuple(replace(tensor, when=is_dense) for tensor in FEED_FORWARD)
"""The feed-forward of a family that has models of both kinds."""

LEADING_DENSE = tuple(
    replace(tensor, rows=Axis.DENSE, m=None)
    if tensor.rows is Axis.HIDDEN
    else replace(tensor, cols=Axis.DENSE, m=None)
    for tensor in DENSE
)
"""The feed-forward of the first layers of a mixture."""

HF_KEYS = {
    "num_experts": "expert_count",
    "num_local_experts": "expert_count",  # as transformers 5 writes it
    "num_experts_per_tok": "expert_used_count",
    "moe_intermediate_size": "expert_feed_forward_length",
    "shared_expert_intermediate_size": "expert_shared_feed_forward_length",
    "norm_topk_prob": "expert_weights_norm",
}
"""Keys of config.json, and those of metadata that mean the same (Family.hf_keys)."""

HF_GROUPED_KEYS = {
    "n_routed_experts": "expert_count",
    "num_experts_per_tok": "expert_used_count",
    "moe_intermediate_size": "expert_feed_forward_length",
    "n_shared_experts": "expert_shared_count",
    "norm_topk_prob": "expert_weights_norm",
    "routed_scaling_factor": "expert_weights_scale",
    "n_group": "expert_group_count",
    "topk_group": "expert_group_used_count",
    "first_k_dense_replace": "leading_dense_block_count",
}
"""The same of mixtures in the manner of DeepSeek's (arXiv 2405.04434, 2412.19437)."""

KEYS = frozenset({"expert_count"})
"""The metadata keys that families of mixtures compute with (Family.keys)."""


def enter_mixture(ops: Ops, layer: Layer) -> None:
    """Takes in what attention has added up, and norms the input of the router and of experts; or of
    a dense feed-forward."""
    readers = (layer.matrix(name) for name in ("routers", "shared_gate_up", "gate_up"))
    ops.add_norm(layer.after_attention, layer.vector("norm2"), *readers)


def begin_mixture(ops: Ops, layer: Layer) -> None:
    """Chooses the experts of `end_mixture`, and computes w1 x and w3 x."""
    router, gate_up = layer.matrix("routers"), layer.matrix("expert_gate_up")
    if router is None or gate_up is None:
        return
    ops.route(router, layer.vector("router_bias"), layer.vector("choice_bias"))
    ops.begin_experts(gate_up)


def end_mixture(ops: Ops, layer: Layer) -> None:
    """This rank's columns' part of the sum over a row's experts of weight * w2(silu(w1 x) * w3 x),
    to ops.addend (T, dim). Biases that the layer does not have are left out."""
    w2 = layer.matrix("expert_w2")
    shared_gate_up, shared_w2 = layer.matrix("shared_gate_up"), layer.matrix("shared_w2")
    if w2 is None:  # no columns here
        ops.add_nothing()
        return
    ops.end_experts(w2, layer.of_experts("expert_gate_up_bias"))
    if shared_gate_up is not None and shared_w2 is not None:
        ops.run_shared_expert(shared_gate_up, shared_w2)
    ops.add_experts(layer.of_experts("expert_b2"))


def begin_mixture_or_dense(ops: Ops, layer: Layer) -> None:
    """`begin_mixture`, or the same for the dense feed-forward of a layer without experts."""
    begin = begin_feed_forward if layer.matrix("routers") is None else begin_mixture
    begin(ops, layer)


def end_mixture_or_dense(ops: Ops, layer: Layer) -> None:
    """`end_mixture`, or the same for the dense feed-forward of a layer without experts."""
    end = end_feed_forward if layer.matrix("routers") is None else end_mixture
    end(ops, layer)


MIXTURE = HalfLayer(enter_mixture, end_mixture, begin=begin_mixture)
MIXTURE_OR_DENSE = HalfLayer(enter_mixture, end_mixture_or_dense, begin=begin_mixture_or_dense)


def expert_fields(
    *, is_normalized: bool, gating: Gating = Gating.SOFTMAX, has_shared: bool = False
) -> Callable[[ArchKeys], Mapping[str, object]]:
    """Returns a function that reads the ModelConfig fields of a mixture (Family.config_of): none of
    a model without experts. It raises ModelFileError for what is computed nowhere here.

    `is_normalized` says whether a family's weights add up to 1 where its files do not tell, and
    `gating` how they are made then; `has_shared` whether it has a shared expert.
    """

    def fields(keys: ArchKeys) -> Mapping[str, object]:
        if not keys.count("expert_count"):
            return {}
        of_dense = keys.count("feed_forward_length") or None
        hidden_dim = keys.integer("expert_feed_forward_length", of_dense)
        n_dense = keys.count("leading_dense_block_count")
        norm = keys.raw("expert_weights_norm")
        found: dict[str, object] = {
            "hidden_dim": hidden_dim,
            "n_experts": keys.integer("expert_count"),
            "n_active_experts": keys.integer("expert_used_count"),
            "shared_hidden_dim": _shared_dim(keys, hidden_dim) if has_shared else 0,
            "has_expert_norm": is_normalized if norm is None else norm is True,
            "expert_scale": keys.number("expert_weights_scale", 1.0, may_be_zero=True) or 1.0,
            "gating": _gating(keys, gating),
            "n_expert_groups": max(1, keys.count("expert_group_count")),
            "n_active_groups": max(1, keys.count("expert_group_used_count")),
            "n_dense_layers": n_dense,
            "dense_hidden_dim": keys.integer("feed_forward_length") if n_dense else 0,
        }
        return found

    return fields


def check_experts(config: ModelConfig, path: Path) -> None:
    """Raises ModelFileError where the sizes of a mixture do not fit each other."""
    n_groups, n_active_groups = config.n_expert_groups, config.n_active_groups
    most = config.n_experts // n_groups * n_active_groups
    if config.n_experts and (
        config.n_active_experts > most
        or config.n_experts % n_groups
        or n_active_groups > n_groups
        or config.shared_hidden_dim % config.hidden_dim
        or config.n_other_layers >= config.n_layers
    ):
        raise ModelFileError(
            f"{path}: a token takes {config.n_active_experts} of {config.n_experts} experts of "
            f"{config.hidden_dim} columns in {n_active_groups} of {n_groups} groups, and a shared "
            f"one of {config.shared_hidden_dim}, in all but {config.n_other_layers} layers of "
            f"{config.n_layers}; expected no more than there are, groups of one size, and a "
            "multiple of the columns. The file is corrupt, or of a kind this version does not "
            "support."
        )


def _shared_dim(keys: ArchKeys, hidden_dim: int) -> int:
    """Returns the columns of the shared expert: said as they are, or as so many experts."""
    if keys.count("expert_shared_feed_forward_length"):
        return keys.integer("expert_shared_feed_forward_length")
    return hidden_dim * keys.count("expert_shared_count")


def _gating(keys: ArchKeys, default: Gating) -> Gating:
    number = keys.count("expert_gating_func")
    found = [gating for gating, known in GATING_NUMBERS.items() if known == number]
    if number and not found:
        raise ModelFileError(
            f"{keys.path}: expert_gating_func is {number}, a way to weigh experts that this "
            "version does not compute. Use another model."
        )
    return found[0] if found else default
