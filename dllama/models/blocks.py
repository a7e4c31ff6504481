"""The blocks that families are built of: rows of the tables of tensors, and what is computed with
them. Written in terms of `Ops`, so that reading a table brings in no kernels.

Shapes: T rows of the step; a rank computes its own heads and hidden columns and leaves a partial
sum (T, dim), which the forward pass adds up over all ranks.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from dllama.models.tensors import Axis, Tensor, has

if TYPE_CHECKING:
    from dllama.runtime.layer import Layer
    from dllama.runtime.ops import Ops

NO_VECTOR = np.zeros(0, np.float32)

EMBED = Tensor("embed", "token_embd.weight", "model.embed_tokens.weight", Axis.VOCAB, Axis.DIM)
NORM = Tensor("norm", "output_norm.weight", "model.norm.weight", None, Axis.DIM)
WCLS = Tensor(
    "wcls", "output.weight", "lm_head.weight", Axis.VOCAB, Axis.DIM,
    when=lambda config, layer: not config.is_tied,
)  # fmt: skip
"""The output head; where it is missing (`is_tied`) the embedding table is the head too."""

NORM1 = Tensor("norm1", "attn_norm.weight", "input_layernorm.weight", None, Axis.DIM, m=10)
NORM2 = Tensor("norm2", "ffn_norm.weight", "post_attention_layernorm.weight", None, Axis.DIM, m=11)

NORM_BIASES = (
    Tensor("norm1_bias", "attn_norm.bias", "input_layernorm.bias", None, Axis.DIM, "norm1"),
    Tensor("norm2_bias", "ffn_norm.bias", "post_attention_layernorm.bias", None, Axis.DIM, "norm2"),
)
NORM_BIAS = Tensor("norm_bias", "output_norm.bias", "model.norm.bias", None, Axis.DIM)
WCLS_BIAS = Tensor("wcls_bias", "output.bias", "lm_head.bias", None, Axis.VOCAB)
"""Biases of norms and of the output head."""

POST_NORM1 = Tensor(
    "post_norm1", "post_attention_norm.weight", "post_attention_layernorm.weight", None, Axis.DIM
)
POST_NORM2 = Tensor(
    "post_norm2", "post_ffw_norm.weight", "post_feedforward_layernorm.weight", None, Axis.DIM
)
"""Norms of what a half layer adds, after the sum over all ranks."""

QKV = (
    Tensor("wq", "attn_q.weight", "self_attn.q_proj.weight", Axis.HEADS, Axis.DIM, "qkv", 1, True),
    Tensor("wk", "attn_k.weight", "self_attn.k_proj.weight", Axis.KV_HEADS, Axis.DIM, "qkv", 2,
           True),
    Tensor("wv", "attn_v.weight", "self_attn.v_proj.weight", Axis.KV_HEADS, Axis.DIM, "qkv", 3),
)  # fmt: skip
WO = Tensor("wo", "attn_output.weight", "self_attn.o_proj.weight", Axis.DIM, Axis.HEADS, m=4)
BO = Tensor("bo", "attn_output.bias", "self_attn.o_proj.bias", None, Axis.DIM)
QKV_BIAS = (
    Tensor(
        "bq", "attn_q.bias", "self_attn.q_proj.bias", None, Axis.HEADS, "qkv_bias",
        has_pairs=True, when=has("has_qkv_bias"),
    ),
    Tensor(
        "bk", "attn_k.bias", "self_attn.k_proj.bias", None, Axis.KV_HEADS, "qkv_bias",
        has_pairs=True, when=has("has_qkv_bias"),
    ),
    Tensor(
        "bv", "attn_v.bias", "self_attn.v_proj.bias", None, Axis.KV_HEADS, "qkv_bias",
        when=has("has_qkv_bias"),
    ),
)  # fmt: skip
QK_NORM = (
    Tensor("q_norm", "attn_q_norm.weight", "self_attn.q_norm.weight", None, Axis.HEAD, m=8,
           when=has("has_qk_norm")),
    Tensor("k_norm", "attn_k_norm.weight", "self_attn.k_norm.weight", None, Axis.HEAD, m=9,
           when=has("has_qk_norm")),
)  # fmt: skip
"""Norms of each query and key head, before its rotation."""
SINKS = Tensor(
    "sinks", "attn_sinks.weight", "self_attn.sinks", None, Axis.QUERY_HEADS
)  # fmt: skip
"""A logit of each query head that joins the softmax's total."""

JOINT_QK_NORM = tuple(
    replace(norm, cols=cols, m=None)
    for norm, cols in zip(QK_NORM, (Axis.HEADS, Axis.KV_HEADS), strict=True)
)
"""Norms of all query heads together, and of all key heads; or each head with weights of its own."""

FEED_FORWARD = (
    Tensor("w1", "ffn_gate.weight", "mlp.gate_proj.weight", Axis.HIDDEN, Axis.DIM, "gate_up", 5),
    Tensor("w3", "ffn_up.weight", "mlp.up_proj.weight", Axis.HIDDEN, Axis.DIM, "gate_up", 7),
    Tensor("w2", "ffn_down.weight", "mlp.down_proj.weight", Axis.DIM, Axis.HIDDEN, m=6),
)


def enter_attention(ops: Ops, layer: Layer) -> None:
    """Takes in what the half layer before has added up, and norms the input of attention. Norms
    that the layer does not have are left out."""
    qkv = layer.matrix("qkv")
    ops.add_norm(layer.after_previous, layer.vector("norm1"), qkv)


def attention(ops: Ops, layer: Layer) -> None:
    """This rank's heads' part of wo(softmax(q k * scale) v), to ops.addend (T, dim). Biases, norms
    and sinks that the layer does not have are left out."""
    qkv, wo = layer.matrix("qkv"), layer.matrix("wo")
    if qkv is None or wo is None:  # no heads here
        ops.add_nothing()
        return
    ops.matmul(qkv, ops.normed, ops.qkv)
    ops.rotate_and_store(
        layer, layer.vector("qkv_bias"), layer.vector("q_norm"), layer.vector("k_norm")
    )
    mixed = ops.attend(layer, reader=wo, sinks=layer.vector("sinks"))
    ops.matmul(wo, mixed, ops.addend)


def measure_heads(ops: Ops, layer: Layer) -> None:
    """Queries, keys and values, and this rank's heads' part of the mean squares of a row's queries
    and keys, to ops.joint_norms."""
    qkv = layer.matrix("qkv")
    if qkv is None:  # no heads here
        ops.joint_norms.measure_nothing()
        return
    ops.matmul(qkv, ops.normed, ops.qkv)
    ops.joint_norms.measure()


def jointly_normed_attention(ops: Ops, layer: Layer) -> None:
    """As `attention`, of queries and keys that are normed over all heads together, after
    `measure_heads` and its sum over all ranks."""
    wo = layer.matrix("wo")
    if wo is None:  # no heads here
        ops.add_nothing()
        return
    ops.joint_norms.norm(layer.vector("q_norm"), layer.vector("k_norm"))
    ops.rotate_and_store(layer, layer.vector("qkv_bias"), NO_VECTOR, NO_VECTOR)
    mixed = ops.attend(layer, reader=wo)
    ops.matmul(wo, mixed, ops.addend)


def enter_feed_forward(ops: Ops, layer: Layer) -> None:
    """Takes in what attention has added up, and norms the input of the feed-forward."""
    gate_up = layer.matrix("gate_up")
    ops.add_norm(layer.after_attention, layer.vector("norm2"), gate_up)


def feed_forward(ops: Ops, layer: Layer) -> None:
    """This rank's columns' part of w2(silu(w1 x) * w3 x), or of another function of the gate, to
    ops.addend (T, dim)."""
    begin_feed_forward(ops, layer)
    end_feed_forward(ops, layer)


def begin_feed_forward(ops: Ops, layer: Layer) -> None:
    """w1 x and w3 x of `feed_forward`: two thirds of its work."""
    if (gate_up := layer.matrix("gate_up")) is not None:
        ops.matmul(gate_up, ops.normed, ops.gate_up)


def end_feed_forward(ops: Ops, layer: Layer) -> None:
    """The rest of `feed_forward`."""
    w2 = layer.matrix("w2")
    if w2 is None:  # no columns here
        ops.add_nothing()
        return
    hidden = ops.swiglu(reader=w2)
    ops.matmul(w2, hidden, ops.addend)


def enter_parallel(ops: Ops, layer: Layer) -> None:
    """Takes in what the layer before has added up, and norms the input of attention and of the
    feed-forward."""
    readers = (layer.matrix("qkv"), layer.matrix("gate_up"))
    ops.add_norm(layer.after_previous, layer.vector("norm1"), *readers)


def parallel(ops: Ops, layer: Layer) -> None:
    """This rank's part of attention and of the feed-forward of the same rows, to ops.addend
    (T, dim)."""
    ops.begin_part(0)
    attention(ops, layer)
    ops.begin_part(1)
    feed_forward(ops, layer)
    ops.add_parts()
