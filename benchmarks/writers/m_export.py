"""Writes distributed-llama's .m file from a ModelConfig: the inverse of m_file."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np

from dllama.config import ModelConfig, RopeScalingKind
from dllama.formats.m_layout import (
    ARCH_TYPES,
    FLOAT_TYPES,
    MAGIC,
    NORM_EPSILONS,
    SILU,
    MKey,
    MRope,
    m_tensors,
)
from dllama.formats.rope_order import RotaryPairs, interleaved_order
from dllama.formats.writing.streamed import StreamedFile
from dllama.models import FAMILIES, model_tensors
from dllama.qtypes import QType


def m_stream(path: Path, config: ModelConfig, qtype: QType) -> StreamedFile:
    """A file to write the blocks of m_tensors(config, qtype) to, in that order. Raises ValueError
    for models that the format cannot describe: other architectures, biases, factors, fractions."""
    pairs = b"".join(
        struct.pack("<ii", key, value) for key, value in _header(config, qtype).items()
    )
    head = MAGIC + struct.pack("<i", 8 + len(pairs)) + pairs
    return StreamedFile(path, head, m_tensors(config, qtype))


def in_m_order(config: ModelConfig, name: str, values: np.ndarray) -> np.ndarray:
    """`values` (rows, cols) of our tensor `name`, with RoPE pairs as .m stores them."""
    tensor = model_tensors(config).get(name)  # a tied head is stored too, as no tensor of ours
    if not FAMILIES[config.arch].is_interleaved or tensor is None or not tensor.has_pairs:
        return values
    pairs = RotaryPairs(config.head_dim, config.rotary_dim)
    ordered: np.ndarray = values[interleaved_order(len(values), pairs)]
    return ordered


def _header(config: ModelConfig, qtype: QType) -> dict[MKey, int]:
    arch = {name: number for number, name in ARCH_TYPES.items()}.get(config.arch)
    epsilon = {value: key for key, value in NORM_EPSILONS.items()}.get(config.norm_epsilon)
    float_type = {q: number for number, q in FLOAT_TYPES.items()}.get(qtype)
    has_foreign = config.has_qkv_bias or config.rope_factors is not None
    if arch is None or epsilon is None or float_type is None or has_foreign:
        raise ValueError(f"the .m format cannot hold {config} in {qtype.name}")
    return {
        MKey.VERSION: 0,
        MKey.ARCH_TYPE: arch,
        MKey.DIM: config.dim,
        MKey.HIDDEN_DIM: config.hidden_dim,
        MKey.N_LAYERS: config.n_layers,
        MKey.N_HEADS: config.n_heads,
        MKey.N_KV_HEADS: config.n_kv_heads,
        MKey.N_EXPERTS: 0,
        MKey.N_ACTIVE_EXPERTS: 0,
        MKey.VOCAB_SIZE: config.vocab_size,
        MKey.MAX_SEQ_LEN: config.max_seq_len,
        MKey.HIDDEN_ACT: SILU,
        MKey.ROPE_THETA: _whole(config.rope_theta),
        MKey.WEIGHTS_FLOAT_TYPE: float_type,
        MKey.HEAD_DIM: config.head_dim,
        MKey.NORM_EPSILON: epsilon,
    } | _rope_scaling(config)


def _rope_scaling(config: ModelConfig) -> dict[MKey, int]:
    scaling = config.rope_scaling
    if scaling is None:
        return {}
    if scaling.kind is not RopeScalingKind.LLAMA3 or config.arch != "llama":
        raise ValueError(f"the .m format knows no {scaling.kind} scaling for {config.arch}")
    return {
        MKey.ROPE_SCALING_FACTOR: _whole(scaling.factor),
        MKey.ROPE_SCALING_LOW_FREQ_FACTOR: _whole(scaling.low_freq_factor),
        MKey.ROPE_SCALING_HIGH_FREQ_FACTOR: _whole(scaling.high_freq_factor),
        MKey.ROPE_SCALING_ORIG_MAX_SEQ_LEN: scaling.original_max_seq_len,
        MKey.ROPE_TYPE: MRope.LLAMA3_1,
    }


def _whole(value: float) -> int:
    if value != int(value):
        raise ValueError(f"the .m format holds whole numbers only, not {value}")
    return int(value)
