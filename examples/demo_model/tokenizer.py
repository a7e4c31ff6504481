"""The model's tokenizer: a byte-level BPE trained on its own data, and its GGUF metadata."""

from __future__ import annotations

import json
from collections.abc import Iterable

import numpy as np
from tokenizers import Regex, Tokenizer, decoders
from tokenizers.models import BPE
from tokenizers.normalizers import NFC
from tokenizers.pre_tokenizers import ByteLevel, Sequence, Split
from tokenizers.trainers import BpeTrainer

from dllama.tokenizer.pretokenizers import find_pre_tokenizer
from examples.demo_model.data.dialogue import END_OF_TEXT, END_OF_TURN, SPECIALS

VOCAB_SIZE = 4096
PRE = "qwen2"  # composes letters and accents, cuts numbers into digits, and adds no BOS
NORMAL, CONTROL = 1, 3  # llama.cpp's token types
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)


def train_tokenizer(texts: Iterable[str], vocab_size: int = VOCAB_SIZE) -> Tokenizer:
    """A BPE of at most `vocab_size` tokens: the special ones first, 256 bytes, then merges.
    The same texts give the same tokenizer."""
    tokenizer = Tokenizer(BPE())
    cuts = [Split(Regex(pattern), "isolated") for pattern in find_pre_tokenizer(PRE).patterns]
    tokenizer.normalizer = NFC()
    tokenizer.pre_tokenizer = Sequence([*cuts, ByteLevel(add_prefix_space=False, use_regex=False)])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=2,
        show_progress=False,
        special_tokens=list(SPECIALS),
        initial_alphabet=sorted(ByteLevel.alphabet()),
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def tokenizer_metadata(tokenizer: Tokenizer) -> dict[str, object]:
    """The keys `tokenizer.*` of a GGUF file."""
    model = json.loads(tokenizer.to_str())["model"]
    ids: dict[str, int] = model["vocab"]
    tokens = sorted(ids, key=ids.__getitem__)
    types = np.array([CONTROL if t in SPECIALS else NORMAL for t in tokens], np.int32)
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": PRE,
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": types,
        "tokenizer.ggml.merges": [" ".join(pair) for pair in model["merges"]],
        "tokenizer.ggml.bos_token_id": ids[END_OF_TEXT],
        "tokenizer.ggml.eos_token_id": ids[END_OF_TEXT],
        "tokenizer.ggml.eot_token_id": ids[END_OF_TURN],
        "tokenizer.ggml.padding_token_id": ids[END_OF_TEXT],
        "tokenizer.ggml.add_bos_token": False,
        "tokenizer.ggml.add_eos_token": False,
        "tokenizer.chat_template": CHAT_TEMPLATE,
    }
