"""The layout of distributed-llama's .m files: header keys and the order of tensors.

Source: distributed-llama, src/llm.cpp and converter/writer.py (v0.16). Little-endian int32 pairs
after a magic number and the header's size; tensors follow without names, padding or alignment.
"""

from __future__ import annotations

from enum import IntEnum

from dllama.config import ModelConfig
from dllama.models import FAMILIES
from dllama.qtypes import QType
from dllama.weight_source import TensorInfo

MAGIC = (0x0A00ABCD).to_bytes(4, "little")


class MKey(IntEnum):
    """Header keys."""

    VERSION = 0
    ARCH_TYPE = 1
    DIM = 2
    HIDDEN_DIM = 3
    N_LAYERS = 4
    N_HEADS = 5
    N_KV_HEADS = 6
    N_EXPERTS = 7
    N_ACTIVE_EXPERTS = 8
    VOCAB_SIZE = 9
    MAX_SEQ_LEN = 10
    HIDDEN_ACT = 11
    ROPE_THETA = 12
    WEIGHTS_FLOAT_TYPE = 13
    ROPE_SCALING_FACTOR = 14
    ROPE_SCALING_LOW_FREQ_FACTOR = 15
    ROPE_SCALING_HIGH_FREQ_FACTOR = 16
    ROPE_SCALING_ORIG_MAX_SEQ_LEN = 17
    ROPE_TYPE = 18
    HEAD_DIM = 19
    NORM_EPSILON = 20
    MOE_HIDDEN_DIM = 21


class MRope(IntEnum):
    """Layouts of rotary pairs: LLAMA and LLAMA3_1 side by side, FALCON half a head apart."""

    LLAMA = 0
    FALCON = 1
    LLAMA3_1 = 2


ARCH_TYPES: dict[int, str] = {
    family.m_arch: family.arch for family in FAMILIES.values() if family.m_arch is not None
}
MOE_ARCH_TYPE = 0xABCD02
SILU = 1
FLOAT_TYPES: dict[int, QType] = {0: QType.F32, 1: QType.F16, 2: QType.Q4_0, 3: QType.Q8_0}
NORM_EPSILONS: dict[int, float] = {5: 1e-5, 6: 1e-6}


def layer_tensors(config: ModelConfig, qtype: QType) -> list[TensorInfo]:
    """The tensors of one layer in file order, by their short names; vectors are F32."""
    table = FAMILIES[config.arch].layer_tensors(config, 0)
    ordered = sorted((t.m, t.name, t) for t in table if t.m is not None)
    return [
        TensorInfo(name, QType.F32 if tensor.is_vector else qtype, *tensor.shape(config))
        for _, name, tensor in ordered
    ]


def m_tensors(config: ModelConfig, qtype: QType) -> list[TensorInfo]:
    """All tensors in file order, in our names. The embedding is F32 always, and the output head
    is stored even where it equals the embedding."""
    tensors = [TensorInfo("embed", QType.F32, config.vocab_size, config.dim)]
    per_layer = layer_tensors(config, qtype)
    for i in range(config.n_layers):
        tensors += [TensorInfo(f"layers.{i}.{t.name}", t.qtype, t.rows, t.cols) for t in per_layer]
    tensors.append(TensorInfo("norm", QType.F32, 1, config.dim))
    tensors.append(TensorInfo("wcls", qtype, config.vocab_size, config.dim))
    return tensors


def m_file_bytes(config: ModelConfig, qtype: QType) -> int:
    """Bytes of all tensors, without building a list as long as the header claims."""
    per_layer = sum(t.n_bytes for t in layer_tensors(config, qtype))
    embed = TensorInfo("embed", QType.F32, config.vocab_size, config.dim)
    wcls = TensorInfo("wcls", qtype, config.vocab_size, config.dim)
    return embed.n_bytes + config.n_layers * per_layer + 4 * config.dim + wcls.n_bytes
