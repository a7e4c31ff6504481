"""Tensors that GGUF files have alone or, as their converter was told, as parts of one."""

from __future__ import annotations

from dllama.models.tensors import Tensor

_FUSED = {
    **dict.fromkeys(("attn_q.weight", "attn_k.weight", "attn_v.weight"), "attn_qkv.weight"),
    **dict.fromkeys(("attn_q.bias", "attn_k.bias", "attn_v.bias"), "attn_qkv.bias"),
    **dict.fromkeys(("ffn_gate_exps.weight", "ffn_up_exps.weight"), "ffn_gate_up_exps.weight"),
}


def fused_name(tensor: Tensor) -> str:
    """Returns GGUF's name of the tensor that may hold this one and others, below each other in the
    table's order; its own name where none does."""
    return _FUSED.get(tensor.gguf, tensor.gguf)
