"""gpt-oss (arXiv 2508.10925): mixtures of experts with biases throughout, whose gates are cut off.
Every other layer, the first among them, attends to a window; sinks take a part of attention."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from dllama.models.blocks import BO, NORM1, NORM2, QKV, QKV_BIAS, SINKS, WO
from dllama.models.experts import (
    EXPERTS,
    HF_KEYS,
    KEYS,
    MIXTURE,
    ROUTER,
    expert_fields,
    has_experts,
)
from dllama.models.family import Family
from dllama.models.tensors import Axis, Tensor
from dllama.models.windows import WindowRule
from kernels.gates import Gate

if TYPE_CHECKING:
    from dllama.formats.gguf_metadata import ArchKeys

ROUTER_BIAS = Tensor(
    "router_bias", "ffn_gate_inp.bias", "mlp.router.bias", None, Axis.EXPERTS, when=has_experts
)

HF_EXPERTS = {
    "expert_w1": "mlp.experts.gate_up_proj[0::2]",
    "expert_w3": "mlp.experts.gate_up_proj[1::2]",
    "expert_w2": "mlp.experts.down_proj",
}
"""Checkpoints have the outputs of both halves by turns, in one tensor of all experts."""


def _of_each_expert(name: str, gguf: str, hf: str, cols: Axis, **more: object) -> Tensor:
    """A bias of each expert."""
    experts = EXPERTS[0].experts
    return Tensor(name, gguf, hf, None, cols, experts=experts, when=has_experts, **more)  # type: ignore[arg-type]


BIASES = (
    _of_each_expert("expert_b1", "ffn_gate_exps.bias", "mlp.experts.gate_up_proj_bias[0::2]",
                    Axis.HIDDEN, joined="expert_gate_up_bias"),
    _of_each_expert("expert_b3", "ffn_up_exps.bias", "mlp.experts.gate_up_proj_bias[1::2]",
                    Axis.HIDDEN, joined="expert_gate_up_bias"),
    _of_each_expert("expert_b2", "ffn_down_exps.bias", "mlp.experts.down_proj_bias", Axis.DIM,
                    is_once=True),
)  # fmt: skip


def _fields(keys: ArchKeys) -> Mapping[str, object]:
    return {**expert_fields(is_normalized=True)(keys), "gate": Gate.CLAMPED}


GPT_OSS = Family(
    arch="gpt-oss",
    title="gpt-oss-20b, gpt-oss-120b",
    hf_types=("gpt_oss",),
    hf_keys=HF_KEYS,
    layer=(
        NORM1, *QKV, *QKV_BIAS, SINKS, WO, BO,
        replace(NORM2, gguf="post_attention_norm.weight", m=None),
        replace(ROUTER, hf="mlp.router.weight"), ROUTER_BIAS,
        *(replace(tensor, hf=HF_EXPERTS[tensor.name]) for tensor in EXPERTS), *BIASES,
    ),
    always={"has_qkv_bias": True},
    windows=WindowRule(every=2, default=128),
    rounds_yarn=False,
    feed_forward=MIXTURE,
    config_of=_fields,
    keys=KEYS,
)  # fmt: skip
