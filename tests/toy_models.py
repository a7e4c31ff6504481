"""Small models with seeded random weights, for the tests of every package.

A toy is the same function of its seed in every format: only the order of its rows on disk
differs. Scales are chosen so that activations stay near 1 and logits spread over several units.
"""

from __future__ import annotations

import zlib
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np

from benchmarks.writers.decode import decode
from benchmarks.writers.filler_vocabulary import bpe_metadata, spm_metadata
from benchmarks.writers.m_export import in_m_order, m_stream
from dllama.config import (
    FULL_ATTENTION,
    DeltaSizes,
    Gating,
    Latent,
    LayerAttention,
    ModelConfig,
    QueryGrowth,
    RopeScaling,
    RopeScalingKind,
)
from dllama.formats.m_layout import m_tensors
from dllama.formats.writing.encode import encode
from dllama.formats.writing.gguf_export import factor_rows, in_file_order, model_stream
from dllama.models import FAMILIES, model_tensors
from dllama.models.latent import LATENT_ATTENTION
from dllama.qtypes import BLOCK, QType
from kernels.gates import Gate

TOKENIZERS = {"bpe": bpe_metadata, "spm": spm_metadata}

GAIN = {"embed": 3.0, "wcls": 3.0, "wo": 1.5, "w2": 2.0, "expert_w2": 3.0, "router": 2.0,
        "delta_out": 1.5}  # fmt: skip
"""Standard deviation of a matrix times sqrt(cols), where it is not 1."""


GROUPED: dict[str, object] = {
    "n_experts": 8,
    "n_active_experts": 3,
    "has_expert_norm": True,
    "gating": Gating.SIGMOID,
    "has_choice_bias": True,
    "n_expert_groups": 4,
    "n_active_groups": 2,
    "expert_scale": 1.5,
    "n_dense_layers": 1,
    "dense_hidden_dim": 224,
}
"""Experts in groups, weighed by sigmoids, after a dense layer."""

EXPERTS: dict[str, dict[str, object]] = {
    "qwen3moe": {"n_experts": 8, "n_active_experts": 3, "has_expert_norm": True},
    "qwen2moe": {"n_experts": 6, "n_active_experts": 2},
    "qwen3next": {"n_experts": 8, "n_active_experts": 3, "has_expert_norm": True},
    "qwen35moe": {"n_experts": 8, "n_active_experts": 3, "has_expert_norm": True},
    "gpt-oss": {
        "n_experts": 8,
        "n_active_experts": 3,
        "has_expert_norm": True,
        "gate": Gate.CLAMPED,
        "attention_layers": (LayerAttention(window=40), FULL_ATTENTION),
    },
    "granitemoe": {"n_experts": 6, "n_active_experts": 2, "has_expert_norm": True},
    "olmoe": {"n_experts": 8, "n_active_experts": 3},
    "llama4": {
        "n_experts": 8,
        "n_active_experts": 1,
        "gating": Gating.SIGMOID,
        "weighs_inputs": True,
        "mixture_interval": 2,
        "dense_hidden_dim": 224,
        "has_plain_qk_norm": True,
        "query_growth": QueryGrowth(0.5, 13),
    },
    "phimoe": {"n_experts": 8, "n_active_experts": 2, "gating": Gating.SPARSE_MIXER},
    "glm4moe": GROUPED
    | {
        "partial_rotary_dim": 8,
        "has_qkv_bias": True,
        "has_qk_norm": True,
    },
    "deepseek2": GROUPED,
}
"""The experts of a toy of two layers, and what comes with them, by its family."""

DELTA: dict[str, DeltaSizes] = {
    "qwen3next": DeltaSizes(4, 8, 16, 32, 4, interval=2, n_slots=24, pairs_gates=True),
    "qwen35": DeltaSizes(4, 8, 16, 128, 4, interval=2, bundle=2, n_slots=24),
    "qwen35moe": DeltaSizes(4, 4, 16, 32, 4, interval=2, n_slots=24),
}
"""The gated delta nets of a toy, by its family."""
SHARED = {"qwen2moe": 2, "glm4moe": 1, "deepseek2": 2, "llama4": 1}
"""How many experts the shared one of a toy is as wide as, by its family."""

LATENT = Latent(kv_rank=32, rope_dim=8, nope_dim=32, value_dim=32, q_rank=64)
"""The latent attention of a toy."""

DEEPSEEK: dict[str, object] = {
    "latent": LATENT, "n_kv_heads": 4, "head_dim": 40, "partial_rotary_dim": 8,
    "shared_hidden_dim": 320, **EXPERTS["deepseek2"],
}  # fmt: skip
"""All that comes with it in a toy of four heads."""

V2_LITE: dict[str, object] = {
    "latent": replace(LATENT, q_rank=0),
    "gating": Gating.SOFTMAX,
    "has_choice_bias": False,
    "has_expert_norm": False,
    "rope_scaling": RopeScaling(RopeScalingKind.YARN, 4.0, 64, attention_factor=1.0),
    "attention_scale": 0.2,
}
"""What differs in a DeepSeek-V2-Lite."""

MIXTRAL: dict[str, object] = {"n_experts": 4, "n_active_experts": 2, "has_expert_norm": True}
"""Those of a llama that is a Mixtral."""

GRANITE: dict[str, object] = {
    "attention_scale": 0.125,
    "embedding_scale": 1.5,
    "residual_scale": 0.75,
    "logit_scale": 0.25,
}
"""The scales of a toy that is a Granite."""

LONGROPE: dict[str, object] = {
    "partial_rotary_dim": 12,
    "rope_scaling": RopeScaling(RopeScalingKind.LONGROPE, 1.0, 100, attention_factor=1.125),
    "rope_factors": (1.0, 1.0, 1.25, 1.5, 1.5, 2.0),
    "long_rope_factors": (1.0, 1.5, 2.0, 4.0, 8.0, 16.0),
}
"""The positions of a phi3 with a long context, which a toy has."""


def write_toy(
    path: Path,
    *,
    fmt: Literal["gguf", "m"] = "gguf",
    arch: str = "llama",
    qtype: QType = QType.F32,
    dim: int = 64,
    hidden_dim: int = 160,
    n_layers: int = 2,
    n_heads: int = 4,
    n_kv_heads: int = 2,
    head_dim: int | None = None,
    vocab_size: int = 352,
    max_seq_len: int = 256,
    seed: int = 0,
    tied: bool = False,
    rope_theta: float = 10000.0,
    rope_scaling: RopeScaling | None = None,
    rope_factors: tuple[float, ...] | None = None,
    tokenizer: Literal["bpe", "spm"] = "bpe",
    n_tokens: int | None = None,
    **more: object,
) -> Path:
    """Writes a toy model and returns its path; a GGUF has a tokenizer of `n_tokens`, by default of
    `vocab_size`, and further fields of its config (`more`). A matrix whose columns are no
    multiple of the block of `qtype` is stored as F16 in GGUF, as llama.cpp does, and refused in
    .m."""
    if arch in ("qwen2moe", "qwen3next", "qwen35moe"):
        more = {"shared_hidden_dim": 2 * hidden_dim, **more}
    if arch in DELTA:
        more = {"delta": DELTA[arch], **more}
    if arch == "llama4":
        more = {"attention_layers": llama4_layers(n_layers), **more}
    if arch in SHARED:
        more = {"shared_hidden_dim": SHARED[arch] * hidden_dim, **more}
    if FAMILIES[arch].attention is LATENT_ATTENTION:
        more = {"latent": LATENT, **more}
    if isinstance(latent := more.get("latent"), Latent):
        head_dim, n_kv_heads = latent.nope_dim + latent.rope_dim, n_heads
        more = {"partial_rotary_dim": latent.rope_dim, **more}
    config = ModelConfig(
        arch=arch,
        name=f"toy-{arch}-{seed}",
        dim=dim,
        hidden_dim=hidden_dim,
        n_layers=n_layers,
        n_heads=n_heads,
        n_kv_heads=n_kv_heads,
        head_dim=head_dim or dim // n_heads,
        vocab_size=vocab_size,
        max_seq_len=max_seq_len,
        norm_epsilon=1e-6 if arch == "qwen3" else 1e-5,
        rope_theta=rope_theta,
        rope_scaling=rope_scaling,
        rope_factors=rope_factors,
        is_tied=tied,
        **{**FAMILIES[arch].always, **EXPERTS.get(arch, {}), **more},
    )
    if fmt == "m":
        _write_m(path, config, qtype, seed)
    else:
        _write_gguf(path, config, qtype, seed, TOKENIZERS[tokenizer](n_tokens or vocab_size))
    return path


def llama4_layers(n_layers: int) -> tuple[LayerAttention, ...]:
    """Chunks of a toy that is a Llama 4, but in every fourth layer."""
    local, full = LayerAttention(window=20, is_chunked=True), LayerAttention(is_rotated=False)
    return tuple(full if i % 4 == 3 else local for i in range(n_layers))


def toy_tensor(config: ModelConfig, name: str, seed: int) -> np.ndarray:
    """The float32 values (rows, cols) of one tensor, in our names and our row order."""
    tensor = model_tensors(config)[name]
    rows, cols = tensor.shape(config)
    rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
    normal = rng.standard_normal((rows, cols), np.float32)
    if tensor.gguf.endswith(".bias"):
        return np.float32(0.3) * normal
    if tensor.name == "delta_decay":
        return -np.exp(np.float32(0.7) * normal - 1)
    if tensor.is_vector:
        return 1 + np.float32(0.1) * normal
    return normal * np.float32(GAIN.get(tensor.name, 1.0) / np.sqrt(cols))


def _write_gguf(
    path: Path, config: ModelConfig, qtype: QType, seed: int, tokenizer: dict[str, object]
) -> None:
    tensors = model_tensors(config)

    def qtype_of(name: str) -> QType:
        if tensors[name].is_vector or name.endswith(".router"):
            return QType.F32
        _, cols = tensors[name].shape(config)
        return QType.F16 if cols % BLOCK[qtype].values else qtype

    with model_stream(path, config, qtype, qtype_of, tokenizer) as out:
        for name in tensors:
            values = in_file_order(config, name, toy_tensor(config, name, seed))
            out.write(encode(values, qtype_of(name)))
        for row in factor_rows(config):
            out.write(row)


def _write_m(path: Path, config: ModelConfig, qtype: QType, seed: int) -> None:
    with m_stream(path, config, qtype) as out:
        for tensor in m_tensors(config, qtype):
            source = "embed" if tensor.name == "wcls" and config.is_tied else tensor.name
            values = in_m_order(config, tensor.name, toy_tensor(config, source, seed))
            if tensor.name == "embed":  # F32 here, whatever the others are: the same values
                values = decode(encode(values, qtype), qtype)
            out.write(encode(values, tensor.qtype))
