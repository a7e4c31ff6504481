"""Small vocabularies made by hand, as GGUF metadata, and the real ones of the shared data."""

from __future__ import annotations

from functools import cache

import numpy as np

from dllama.formats.gguf import GgufFile
from dllama.tokenizer import Tokenizer
from dllama.tokenizer.byte_alphabet import BYTE_ORDER, to_alphabet
from tests.shared_data import shared_file

REAL = ["llama-spm", "llama-bpe", "qwen2", "phi-3"]


@cache
def real_metadata(name: str) -> dict[str, object]:
    """The metadata of a real vocabulary; skips where there is none."""
    file = GgufFile(shared_file(f"vocab/ggml-vocab-{name}.gguf"))
    metadata = dict(file.metadata)
    file.close()
    return metadata


@cache
def real_tokenizer(name: str) -> Tokenizer:
    return Tokenizer.from_gguf_metadata(real_metadata(name))


def spm_metadata(pieces: dict[str, float], *, types: dict[str, int] | None = None) -> dict:
    """Metadata of an SPM tokenizer: <unk> <s> </s>, 256 bytes, then the pieces with scores."""
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{b:02X}>" for b in range(256)), *pieces]
    kinds = [2, 3, 3, *([6] * 256), *((types or {}).get(piece, 1) for piece in pieces)]
    return {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.scores": np.array([0.0] * 259 + list(pieces.values()), np.float32),
        "tokenizer.ggml.token_type": np.array(kinds, np.int32),
    }


def bpe_metadata(
    merges: list[tuple[str, str]], specials: dict[str, int] | None = None, pre: str = "gpt-2"
) -> dict:
    """Metadata of a byte-level BPE tokenizer: 256 bytes, what the merges make, special tokens."""
    tokens = [to_alphabet(bytes([b])) for b in BYTE_ORDER]
    tokens += [left + right for left, right in merges]
    kinds = [1] * len(tokens) + list((specials or {}).values())
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": pre,
        "tokenizer.ggml.tokens": tokens + list(specials or {}),
        "tokenizer.ggml.token_type": np.array(kinds, np.int32),
        "tokenizer.ggml.merges": [f"{left} {right}" for left, right in merges],
    }
