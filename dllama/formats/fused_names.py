"""Tensors that GGUF files have alone or, as their converter was told, as parts of one."""

from __future__ import annotations

from dataclasses import replace

from dllama.models.tensors import Tensor

_FUSED = {
    **dict.fromkeys(("wq", "wk", "wv"), "attn_qkv.weight"),
    **dict.fromkeys(("bq", "bk", "bv"), "attn_qkv.bias"),
    **dict.fromkeys(("expert_w1", "expert_w3"), "ffn_gate_up_exps.weight"),
}


def fused(tensor: Tensor) -> Tensor:
    """Returns a row of a table by the name of the tensor that may hold it and others, below each
    other in the table's order; itself where none does."""
    return replace(tensor, gguf=_FUSED.get(tensor.name, tensor.gguf))


def is_fused(tensor: Tensor) -> bool:
    """Returns whether a row has the name of such a tensor."""
    return tensor.gguf == _FUSED.get(tensor.name)
