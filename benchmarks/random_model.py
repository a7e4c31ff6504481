"""Writes a model of a real shape with random weights: as large and as fast as the real one, with
a valid tokenizer and chat template, and nothing to say.

    python -m benchmarks.random_model llama-3.2-1b /tmp/1b.gguf --type Q4_0
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from benchmarks.writers.filler_vocabulary import bpe_metadata
from dllama.config import (
    FULL_ATTENTION,
    DeltaSizes,
    Gating,
    Latent,
    LayerAttention,
    ModelConfig,
    RopeScaling,
    RopeScalingKind,
)
from dllama.formats.writing.encode import encode
from dllama.formats.writing.gguf_export import factor_rows, model_stream
from dllama.models import model_tensors
from dllama.models.tensors import Tensor
from dllama.qtypes import BLOCK, COMPUTABLE, QType, row_bytes
from dllama.rope import with_rope_factors
from kernels.gates import Gate

PIECE_BYTES = 16 << 20  # large enough for NumPy's speed, small enough for any machine

GAIN = {"embed": 3.0, "wcls": 3.0, "wo": 1.5, "w2": 2.0, "expert_w2": 4.0, "router": 2.0}
"""Standard deviation of a matrix times sqrt(cols), where it is not 1: it keeps activations near 1
and spreads logits over several units."""


SIZES = (
    *("dim", "hidden_dim", "n_layers", "n_heads"),
    *("n_kv_heads", "head_dim", "vocab_size", "max_seq_len"),
)


def _shape(name: str, sizes: str, **more: object) -> ModelConfig:
    """A config from the numbers of SIZES, Llama 3's other traits, and what differs from them."""
    values: dict[str, object] = dict(zip(SIZES, map(int, sizes.split()), strict=True))
    traits: dict[str, object] = {"arch": "llama", "norm_epsilon": 1e-5, "rope_theta": 500000.0}
    return ModelConfig(name=f"random-{name}", **(values | traits | more))  # type: ignore[arg-type]


def _llama3(factor: float) -> RopeScaling:
    return RopeScaling(RopeScalingKind.LLAMA3, factor, 8192, 1.0, 4.0)


_QWEN = {"norm_epsilon": 1e-6, "rope_theta": 1000000.0, "is_tied": True}

SHAPES: dict[str, ModelConfig] = {
    shape.name.removeprefix("random-"): shape
    for shape in (
        _shape("tiny", "256 768 4 8 4 32 2048 4096", rope_theta=10000.0),
        _shape("small", "512 1536 8 8 4 64 8192 4096", rope_theta=10000.0),
        _shape(
            "llama-3.2-1b",
            "2048 8192 16 32 8 64 128256 131072",
            is_tied=True,
            rope_scaling=_llama3(32),
        ),
        _shape(
            "llama-3.2-3b",
            "3072 8192 28 24 8 128 128256 131072",
            is_tied=True,
            rope_scaling=_llama3(32),
        ),
        _shape("llama-3.1-8b", "4096 14336 32 32 8 128 128256 131072", rope_scaling=_llama3(8)),
        _shape(
            "qwen2.5-0.5b",
            "896 4864 24 14 2 64 151936 32768",
            arch="qwen2",
            has_qkv_bias=True,
            **_QWEN,
        ),
        _shape(
            "qwen3-0.6b",
            "1024 3072 28 16 8 128 151936 40960",
            arch="qwen3",
            has_qk_norm=True,
            **_QWEN,
        ),
        _shape(
            "qwen3-30b-a3b",
            "2048 768 48 32 4 128 151936 40960",
            arch="qwen3moe",
            has_qk_norm=True,
            n_experts=128,
            n_active_experts=8,
            has_expert_norm=True,
            **(_QWEN | {"is_tied": False}),
        ),
        _shape(
            "qwen3-next-80b-a3b",
            "2048 512 48 16 2 256 151936 262144",
            arch="qwen3next",
            has_qk_norm=True,
            has_output_gate=True,
            partial_rotary_dim=64,
            n_experts=512,
            n_active_experts=10,
            shared_hidden_dim=512,
            has_expert_norm=True,
            delta=DeltaSizes(16, 32, 128, 128, 4, interval=4, pairs_gates=True),
            **(_QWEN | {"is_tied": False, "rope_theta": 10000000.0}),
        ),
        _shape(
            "glm-4.5-air",
            "4096 1408 46 96 8 128 151552 131072",
            arch="glm4moe",
            rope_theta=1000000.0,
            has_qkv_bias=True,
            partial_rotary_dim=64,
            n_experts=128,
            n_active_experts=8,
            shared_hidden_dim=1408,
            has_shared_gate=False,
            has_expert_norm=True,
            gating=Gating.SIGMOID,
            has_choice_bias=True,
            n_dense_layers=1,
            dense_hidden_dim=10944,
        ),
        _shape(
            "deepseek-v2-lite",
            "2048 1408 27 16 16 192 102400 163840",
            arch="deepseek2",
            norm_epsilon=1e-6,
            rope_theta=10000.0,
            rope_scaling=RopeScaling(RopeScalingKind.YARN, 40.0, 4096, attention_factor=1.0),
            attention_scale=(1 + 0.0707 * math.log(40)) ** 2 / math.sqrt(192),
            partial_rotary_dim=64,
            latent=Latent(kv_rank=512, rope_dim=64, nope_dim=128, value_dim=128),
            n_experts=64,
            n_active_experts=6,
            shared_hidden_dim=2816,
            has_shared_gate=False,
            n_dense_layers=1,
            dense_hidden_dim=10944,
        ),
        _shape(
            "gpt-oss-20b",
            "2880 2880 24 64 8 64 201088 131072",
            arch="gpt-oss",
            rope_theta=150000.0,
            rope_scaling=RopeScaling(RopeScalingKind.YARN, 32.0, 4096, is_rounded=False),
            has_qkv_bias=True,
            n_experts=32,
            n_active_experts=4,
            has_expert_norm=True,
            gate=Gate.CLAMPED,
            attention_layers=(LayerAttention(window=128), FULL_ATTENTION) * 12,
        ),
        _shape(
            "mixtral-8x7b",
            "4096 14336 32 32 8 128 32000 32768",
            rope_theta=1000000.0,
            n_experts=8,
            n_active_experts=2,
            has_expert_norm=True,
        ),
    )
}


def write_random(
    path: Path,
    config: ModelConfig,
    qtype: QType,
    *,
    embed_qtype: QType | None = None,
    seed: int = 0,
    on_bytes: Callable[[int], None] = lambda n: None,
) -> None:
    """Writes `config` with matrices of `qtype`; the embedding and the head may have another type.
    `on_bytes` hears of every piece. Raises ValueError where a row ends inside a block."""
    config = with_rope_factors(config)
    rng = np.random.Generator(np.random.SFC64(seed))

    tensors = model_tensors(config)

    def qtype_of(name: str) -> QType:
        return _stored_type(tensors[name], qtype, embed_qtype or qtype)

    with model_stream(path, config, qtype, qtype_of, bpe_metadata(config.vocab_size)) as out:
        for name, tensor in tensors.items():
            for piece in random_blocks(rng, tensor, config, qtype_of(name)):
                out.write(piece)
                on_bytes(piece.nbytes)
        for row in factor_rows(config):
            out.write(row)


def random_blocks(
    rng: np.random.Generator, tensor: Tensor, config: ModelConfig, qtype: QType
) -> Iterator[np.ndarray]:
    """Yields the blocks of one tensor, uint8, in pieces of whole rows."""
    rows, cols = tensor.shape(config)
    step = max(1, PIECE_BYTES // max(4 * cols, row_bytes(qtype, cols)))
    for first in range(0, rows, step):
        n = min(step, rows - first)
        if tensor.name == "delta_decay":
            yield encode(-np.exp(rng.standard_normal((n, cols), np.float32) - 1), qtype)
        elif tensor.gguf.endswith(".bias"):
            yield encode(0.3 * rng.standard_normal((n, cols), np.float32), qtype)
        elif tensor.is_vector:
            yield encode(1 + 0.1 * rng.standard_normal((n, cols), np.float32), qtype)
        else:
            yield _matrix(rng, n, cols, qtype, GAIN.get(tensor.name, 1.0) / math.sqrt(cols))


def _matrix(rng: np.random.Generator, n: int, cols: int, qtype: QType, std: float) -> np.ndarray:
    """Rows of standard deviation `std`. Quantized ones are drawn as random codes: encoding a
    billion normal values would take minutes."""
    block = BLOCK[qtype]
    if block.values == 1:
        return encode(np.float32(std) * rng.standard_normal((n, cols), np.float32), qtype)
    n_blocks = n * cols // block.values
    words = rng.integers(0, 2**64, -(-n_blocks * block.bytes // 8), np.uint64)
    raw = words.view(np.uint8)[: n_blocks * block.bytes].reshape(n_blocks, block.bytes)
    codes = CODES[qtype]
    scale = std / codes.spread * rng.uniform(0.8, 1.2, n_blocks)
    if codes.has_sign:
        # Codes are seldom symmetric about zero: a random sign of the scale takes their mean to 0.
        scale *= rng.integers(0, 2, n_blocks) * 2 - 1
    codes.put(raw, codes.scale_at, scale)
    if codes.minimum_at is not None:
        codes.put(raw, codes.minimum_at, scale * codes.middle)
    return raw


def _put_half(raw: np.ndarray, at: int, values: np.ndarray) -> None:
    raw[:, at : at + 2] = values.astype("<f2").view(np.uint8).reshape(-1, 2)


def _put_power(raw: np.ndarray, at: int, values: np.ndarray) -> None:
    """The byte of the nearest power of two, which MXFP4 reads half as large."""
    raw[:, at] = np.rint(np.log2(values)) + 128


def _put_e4m3(raw: np.ndarray, at: int, values: np.ndarray) -> None:
    """The same fp8 four times, rounded down, which NVFP4 reads half as large."""
    mantissas, exponents = np.frexp(2 * values)
    codes = 8 * (exponents + 6) + np.floor(16 * mantissas) - 8
    raw[:, at : at + 4] = np.maximum(codes, 1)[:, None]


def _put_in_nibbles(raw: np.ndarray, at: int, values: np.ndarray) -> None:
    """A half as the upper nibbles of four words of two bytes, the lowest first."""
    bits = values.astype("<f2").view(np.uint16)
    for i in range(4):
        top = raw[:, at + 2 * i + 1]
        top[...] = (top & 15) | ((bits >> (4 * i)) & 15) << 4


class Codes(NamedTuple):
    """The meaning of a block's random bits before its scale: their standard deviation, where the
    scale lies, and for types with a minimum where that is and how large in scales, so that weights
    are about 0 on average. `put` writes a scale; most are a float16."""

    spread: float
    scale_at: int
    minimum_at: int | None = None
    middle: float = 0.0
    put: Callable[[np.ndarray, int, np.ndarray], None] = _put_half
    has_sign: bool = True


CODES = {
    QType.Q4_0: Codes(16 / math.sqrt(12), 0),
    QType.Q4_1: Codes(16 / math.sqrt(12), 0, 2, -7.5),
    QType.Q5_0: Codes(32 / math.sqrt(12), 0),
    QType.Q5_1: Codes(32 / math.sqrt(12), 0, 2, -15.5),
    QType.Q8_0: Codes(256 / math.sqrt(12), 0),
    QType.Q2_K: Codes(1.12 * 7.5, 80, 82, 1.5),
    QType.Q3_K: Codes(2.3 * 18.5, 108),
    QType.Q4_K: Codes(4.6 * 36.5, 0, 2, 7.5),
    QType.Q5_K: Codes(9.2 * 36.5, 0, 2, 15.5),
    QType.Q6_K: Codes(18.5 * 74.0, 208),
    QType.IQ4_NL: Codes(74.0, 0),
    QType.IQ4_XS: Codes(74.0 * 18.5, 0),
    QType.MXFP4: Codes(5.85, 0, put=_put_power, has_sign=False),
    QType.NVFP4: Codes(5.85, 0, put=_put_e4m3, has_sign=False),
    QType.Q1_0: Codes(1.0, 0),
    QType.Q2_0: Codes(1.22, 0),
    QType.TQ1_0: Codes(0.82, 52),
    QType.TQ2_0: Codes(1.22, 64),
    QType.IQ1_S: Codes(7.2, 0),
    QType.IQ1_M: Codes(7.2, 48, put=_put_in_nibbles),
    QType.IQ2_XXS: Codes(53.0, 0),
    QType.IQ2_XS: Codes(56.0, 0),
    QType.IQ2_S: Codes(56.0, 0),
    QType.IQ3_XXS: Codes(142.0, 0),
    QType.IQ3_S: Codes(140.0, 0),
}


def main(argv: list[str] | None = None) -> int:
    args = _parser().parse_args(argv)
    config = replace(SHAPES[args.shape], name=f"random-{args.shape}-{args.type}")
    if args.ctx:
        config = replace(config, max_seq_len=args.ctx)
    if args.layers:
        kinds = config.attention_layers[: args.layers]
        config = replace(config, n_layers=args.layers, attention_layers=kinds)
    qtype = QType[args.type]
    embed_qtype = QType[args.embed_type or args.type]
    total = 0
    for tensor in model_tensors(config).values():
        rows, cols = tensor.shape(config)
        total += rows * row_bytes(_stored_type(tensor, qtype, embed_qtype), cols)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task(args.path.name, total=total)
        write_random(
            args.path,
            config,
            qtype,
            embed_qtype=embed_qtype,
            seed=args.seed,
            on_bytes=lambda n: progress.advance(task, n),
        )
    return 0


def _stored_type(tensor: Tensor, qtype: QType, embed_qtype: QType) -> QType:
    if tensor.is_vector or tensor.is_table or tensor.name == "router":
        return QType.F32  # norms, biases and routers, as every converter does
    is_shared = qtype is QType.MXFP4 and tensor.experts is None  # gpt-oss has its experts in it
    return embed_qtype if is_shared or tensor.name in {"embed", "wcls"} else qtype


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.random_model",
        description="Write a GGUF model of a real shape with random weights.",
    )
    types = sorted(qtype.name for qtype in COMPUTABLE)
    parser.add_argument("shape", choices=list(SHAPES), help="the model whose sizes to take")
    parser.add_argument("path", type=Path, help="the file to write")
    parser.add_argument("--type", choices=types, default="Q4_0", help="type of the matrices")
    parser.add_argument(
        "--embed-type",
        choices=types,
        help="type of embedding and output head, and beside MXFP4 of all but experts "
        "(default: --type)",
    )
    parser.add_argument("--seed", type=int, default=0, help="the same seed gives the same file")
    parser.add_argument("--layers", type=int, help="layers to write, instead of all of them")
    parser.add_argument("--ctx", type=int, help="context length to claim, instead of the real one")
    return parser


if __name__ == "__main__":
    sys.exit(main())
