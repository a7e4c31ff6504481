"""Tensors that files store as parts of one: queries, keys and values, or both halves of a
feed-forward, below each other."""

from __future__ import annotations

from dataclasses import replace

from dllama.models.blocks import FEED_FORWARD, QKV
from dllama.models.tensors import Tensor


def stored_in(gguf: str, hf: str, tensors: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Returns the tensors as parts of one, by its names in GGUF and in Hugging Face checkpoints."""
    return tuple(replace(tensor, gguf=gguf, hf=hf) for tensor in tensors)


_W1, _W3, _W2 = FEED_FORWARD
JOINT_QKV = stored_in("attn_qkv.weight", "self_attn.qkv_proj.weight", QKV)
JOINT_FEED_FORWARD = (
    *stored_in("ffn_up.weight", "mlp.gate_up_proj.weight", (_W1, _W3)),
    _W2,
)
