"""Tokenizers that no text trained: valid GGUF metadata of any vocabulary size, for models with
random weights. Real letters in likely orders, so that English costs two to three bytes a token."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

import numpy as np

NORMAL, UNKNOWN, CONTROL, BYTE = 1, 2, 3, 6  # llama.cpp's token types
SPECIALS = ("<|begin_of_text|>", "<|end_of_text|>", "<|im_start|>", "<|im_end|>")
CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + "
    "message['content'] + '<|im_end|>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
_LETTERS = "etaoinshrdlcumwfgypbvkjxqz"  # by how often English uses them
_SYMBOLS = _LETTERS + _LETTERS.upper() + "0123456789"


def bpe_metadata(vocab_size: int) -> dict[str, object]:
    """A byte-level BPE: 256 bytes, `vocab_size` - 260 merges, then SPECIALS. BOS is added, and
    `<|im_end|>` ends a turn. Raises ValueError below 260 tokens or above some 240,000."""
    n_merges = _n_fillers(vocab_size, 256 + len(SPECIALS))
    pairs = list(islice(_pairs("Ġ"), n_merges))
    _require(len(pairs) == n_merges, vocab_size)
    tokens = [*_byte_letters(), *(a + b for a, b in pairs), *SPECIALS]
    types = np.full(vocab_size, NORMAL, np.int32)
    types[-len(SPECIALS) :] = CONTROL
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "llama-bpe",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": types,
        "tokenizer.ggml.merges": [f"{a} {b}" for a, b in pairs],
        **_special_ids(tokens, "<|begin_of_text|>", "<|im_end|>"),
    }


def spm_metadata(vocab_size: int) -> dict[str, object]:
    """A SentencePiece-style vocabulary: `<unk>`, `<s>`, `</s>`, 256 bytes, pieces with falling
    scores, then the ChatML specials. Raises ValueError below 330 tokens."""
    letters = ["▁", *_SYMBOLS, *".,!?'\"-:;\n"]
    fixed = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    specials = ["<|im_start|>", "<|im_end|>"]
    n_pieces = _n_fillers(vocab_size, len(fixed) + len(letters) + len(specials))
    pieces = [a + b for a, b in islice(_pairs("▁"), n_pieces)]
    _require(len(pieces) == n_pieces, vocab_size)
    tokens = [*fixed, *pieces, *letters, *specials]
    types = np.full(vocab_size, NORMAL, np.int32)
    types[0], types[1:3], types[3:259], types[-2:] = UNKNOWN, CONTROL, BYTE, CONTROL
    scores = np.zeros(vocab_size, np.float32)
    scores[259:-2] = -np.arange(vocab_size - 261)
    return {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.pre": "default",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.scores": scores,
        "tokenizer.ggml.token_type": types,
        "tokenizer.ggml.unknown_token_id": 0,
        **_special_ids(tokens, "<s>", "<|im_end|>"),
    }


def _special_ids(tokens: list[str], bos: str, eos: str) -> dict[str, object]:
    return {
        "tokenizer.ggml.bos_token_id": tokens.index(bos),
        "tokenizer.ggml.eos_token_id": tokens.index(eos),
        "tokenizer.ggml.add_bos_token": True,
        "tokenizer.ggml.add_eos_token": False,
        "tokenizer.chat_template": CHATML,
    }


def _pairs(space: str) -> Iterator[tuple[str, str]]:
    """Merges, likely ones first: two symbols, then two merged and a third. Each text comes once,
    and a space only in front."""
    firsts = space + _SYMBOLS
    n = len(firsts) + len(_SYMBOLS) - 1
    twos = [
        (firsts[i], _SYMBOLS[rank - i])
        for rank in range(n)
        for i in range(rank + 1)
        if i < len(firsts) and rank - i < len(_SYMBOLS)
    ]
    yield from twos
    for a, b in twos:
        for c in _SYMBOLS:
            yield a + b, c


def _byte_letters() -> list[str]:
    """The letter that stands for each byte in a byte-level vocabulary, as GPT-2 chose them:
    printable Latin-1 for itself, the others in order from U+0100 on."""
    printable = {*range(33, 127), *range(161, 173), *range(174, 256)}
    others = iter(range(256, 512))
    return [chr(byte) if byte in printable else chr(next(others)) for byte in range(256)]


def _n_fillers(vocab_size: int, n_fixed: int) -> int:
    _require(vocab_size >= n_fixed, vocab_size)
    return vocab_size - n_fixed


def _require(fits: bool, vocab_size: int) -> None:
    if not fits:
        raise ValueError(f"a filler vocabulary cannot have {vocab_size} tokens")
