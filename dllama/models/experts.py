"""Mixtures of experts: the rows of their tables, their metadata, and their half layer. Of many
feed-forwards each token takes a few, by the weights that a router gives them.

Written in terms of `Ops`, as blocks.py is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from dllama.config import ModelConfig
from dllama.errors import ModelFileError
from dllama.models.blocks import FEED_FORWARD, feed_forward
from dllama.models.family import HalfLayer
from dllama.models.tensors import Axis, Tensor

if TYPE_CHECKING:
    from dllama.formats.gguf_metadata import ArchKeys
    from dllama.runtime.layer import Layer
    from dllama.runtime.ops import Ops

SOFTMAX = 1  # llama.cpp's number of the only function that makes weights of a router's logits here


def has_experts(config: ModelConfig, layer: int) -> bool:
    """The condition of a tensor of mixtures."""
    return config.n_experts > 0


def is_dense(config: ModelConfig, layer: int) -> bool:
    """The condition of a tensor of models without experts."""
    return config.n_experts == 0


def has_shared(config: ModelConfig, layer: int) -> bool:
    """The condition of a tensor of the shared expert."""
    return config.shared_hidden_dim > 0


def _n_experts(config: ModelConfig) -> int:
    return config.n_experts


ROUTER = Tensor("router", "ffn_gate_inp.weight", "mlp.gate.weight", Axis.EXPERTS, Axis.DIM,
                "routers", when=has_experts)  # fmt: skip
"""A row for each expert."""

EXPERTS = (
    Tensor("expert_w1", "ffn_gate_exps.weight", "mlp.experts.{e}.gate_proj.weight", Axis.HIDDEN,
           Axis.DIM, "expert_gate_up", experts=_n_experts, when=has_experts),
    Tensor("expert_w3", "ffn_up_exps.weight", "mlp.experts.{e}.up_proj.weight", Axis.HIDDEN,
           Axis.DIM, "expert_gate_up", experts=_n_experts, when=has_experts),
    Tensor("expert_w2", "ffn_down_exps.weight", "mlp.experts.{e}.down_proj.weight", Axis.DIM,
           Axis.HIDDEN, experts=_n_experts, when=has_experts),
)  # fmt: skip

SHARED = (
    Tensor("shared_router", "ffn_gate_inp_shexp.weight", "mlp.shared_expert_gate.weight",
           Axis.SHARED_GATE, Axis.DIM, "routers", when=has_shared),
    Tensor("shared_w1", "ffn_gate_shexp.weight", "mlp.shared_expert.gate_proj.weight", Axis.SHARED,
           Axis.DIM, "shared_gate_up", when=has_shared),
    Tensor("shared_w3", "ffn_up_shexp.weight", "mlp.shared_expert.up_proj.weight", Axis.SHARED,
           Axis.DIM, "shared_gate_up", when=has_shared),
    Tensor("shared_w2", "ffn_down_shexp.weight", "mlp.shared_expert.down_proj.weight", Axis.DIM,
           Axis.SHARED, when=has_shared),
)  # fmt: skip

"""An expert that all rows take, and the row that weighs it."""

DENSE = tuple(replace(tensor, when=is_dense) for tensor in FEED_FORWARD)
"""The feed-forward of a family that has models of both kinds."""

HF_KEYS = {
    "num_experts": "expert_count",
    "num_local_experts": "expert_count",  # as transformers 5 writes it
    "num_experts_per_tok": "expert_used_count",
    "moe_intermediate_size": "expert_feed_forward_length",
    "shared_expert_intermediate_size": "expert_shared_feed_forward_length",
    "norm_topk_prob": "expert_weights_norm",
}
"""Keys of config.json, and those of metadata that mean the same (Family.hf_keys)."""

KEYS = frozenset({"expert_count"})
"""The metadata keys that families of mixtures compute with (Family.keys)."""


def enter_mixture(ops: Ops, layer: Layer) -> None:
    """Takes in what attention has added up, and norms the input of the router and of experts; or of
    a dense feed-forward."""
    readers = (layer.matrix(name) for name in ("routers", "shared_gate_up", "gate_up"))
    ops.add_norm(layer.after_attention, layer.vector("norm2"), *readers)


def mixture(ops: Ops, layer: Layer) -> None:
    """This rank's columns' part of the sum over a row's experts of weight * w2(silu(w1 x) * w3 x),
    to ops.addend (T, dim). Biases that the layer does not have are left out."""
    router, gate_up, w2 = (
        layer.matrix(name) for name in ("routers", "expert_gate_up", "expert_w2")
    )
    shared_gate_up, shared_w2 = layer.matrix("shared_gate_up"), layer.matrix("shared_w2")
    if router is None or gate_up is None or w2 is None:
        ops.add_nothing()
        return
    ops.route(router, layer.vector("router_bias"))
    ops.run_experts(gate_up, w2, layer.of_experts("expert_gate_up_bias"))
    if shared_gate_up is not None and shared_w2 is not None:
        ops.run_shared_expert(shared_gate_up, shared_w2)
    ops.add_experts(layer.of_experts("expert_b2"))


def mixture_or_dense(ops: Ops, layer: Layer) -> None:
    """The same, or the dense feed-forward of a model without experts."""
    compute = feed_forward if layer.matrix("routers") is None else mixture
    compute(ops, layer)


MIXTURE = HalfLayer(enter_mixture, mixture)
MIXTURE_OR_DENSE = HalfLayer(enter_mixture, mixture_or_dense)


def expert_fields(*, is_normalized: bool) -> Callable[[ArchKeys], Mapping[str, object]]:
    """Returns a function that reads the ModelConfig fields of a mixture (Family.config_of): none of
    a model without experts. It raises ModelFileError for what is computed nowhere here.

    `is_normalized` says whether a family's weights add up to 1 where its files do not tell.
    """

    def fields(keys: ArchKeys) -> Mapping[str, object]:
        if keys.raw("expert_count") in (None, 0):
            return {}
        _refuse_foreign_routers(keys)
        n_experts, n_active = keys.integer("expert_count"), keys.integer("expert_used_count")
        hidden_dim = keys.integer("expert_feed_forward_length", keys.integer("feed_forward_length"))
        shared = keys.raw("expert_shared_feed_forward_length") not in (None, 0)
        shared_dim = keys.integer("expert_shared_feed_forward_length") if shared else 0
        if n_active > n_experts or shared_dim % hidden_dim:
            raise ModelFileError(
                f"{keys.path}: a token takes {n_active} of {n_experts} experts of {hidden_dim} "
                f"columns, and a shared one of {shared_dim}; expected no more than there are, and "
                "a multiple of the columns. The file is corrupt, or of a kind this version does "
                "not support."
            )
        scale = keys.raw("expert_weights_scale") not in (None, 0)
        norm = keys.raw("expert_weights_norm")
        return {
            "hidden_dim": hidden_dim,
            "n_experts": n_experts,
            "n_active_experts": n_active,
            "shared_hidden_dim": shared_dim,
            "has_expert_norm": is_normalized if norm is None else norm is True,
            "expert_scale": keys.number("expert_weights_scale") if scale else 1.0,
        }

    return fields


def _refuse_foreign_routers(keys: ArchKeys) -> None:
    for key, computed in (("expert_gating_func", (None, 0, SOFTMAX)),
                          ("expert_group_count", (None, 0, 1))):  # fmt: skip
        if keys.raw(key) not in computed:
            raise ModelFileError(
                f"{keys.path}: {key} is {keys.raw(key)!r}, a way to choose experts that this "
                "version does not compute. Use another model."
            )
