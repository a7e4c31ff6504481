"""Unicode's normal forms: each vocabulary gives the ids that transformers' own tokenizer gives, for
letters with accents, however they are written."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dllama.tokenizer import Tokenizer
from dllama.tokenizer.pretokenizers import PRE_TOKENIZERS
from dllama.tokenizer.vocabulary import SPACE_MARK
from tests.dllama.tokenizer.vocabularies import REAL, bpe_metadata, real_metadata, real_tokenizer

Encode = Callable[[str], list[int]]
COMBINED = "cafe\u0301"
# Accents, jamo and letters that change in some normal form, among ordinary text.
SPECIMENS = [
    *("\u0301\u0300\u0327\u0323\u0307\u030a\u3099\u1161\u11a8\u0345"),
    *"eaocsかは\u1100\u1112éﬁÅ\u212b\u2126½각ﷺ你1' \n",
]
texts = st.lists(st.sampled_from(SPECIMENS) | st.characters(exclude_categories=["Cs"])).map("".join)


def pieces_of(metadata: dict[str, object]) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """The vocabulary and the merges, as transformers takes them."""
    tokens: Any = metadata["tokenizer.ggml.tokens"]
    merges: Any = metadata["tokenizer.ggml.merges"]
    vocab = {token: i for i, token in reversed(list(enumerate(tokens)))}
    return vocab, [(a, b) for a, b in (line.split(" ") for line in merges)]


@cache
def transformers_of(name: str) -> Encode:
    """Encoding by transformers' class for a real vocabulary; skips without transformers."""
    transformers = pytest.importorskip("transformers")
    metadata = real_metadata(name)
    if name == "qwen2":
        vocab, merges = pieces_of(metadata)
        return plain(transformers.Qwen2Tokenizer(vocab=vocab, merges=merges))
    if name == "llama-bpe":
        return llama3(*pieces_of(metadata))
    tokens: Any = metadata["tokenizer.ggml.tokens"]
    scores: Any = metadata["tokenizer.ggml.scores"]
    vocab = {token: i for i, token in reversed(list(enumerate(tokens)))}
    ranked = sorted(vocab, key=lambda piece: (-scores[vocab[piece]], vocab[piece]))
    merges = [
        (piece[:at], piece[at:])
        for piece in ranked
        for at in range(1, len(piece))
        if piece[:at] in vocab and piece[at:] in vocab
    ]
    return plain(transformers.LlamaTokenizer(vocab=vocab, merges=merges, legacy=False))


def llama3(vocab: dict[str, int], merges: list[tuple[str, str]]) -> Encode:
    """Llama 3's tokenizer.json: no normalizer. (transformers has no class of its own for it.)"""
    tokenizers = pytest.importorskip("tokenizers")
    before = tokenizers.pre_tokenizers
    engine = tokenizers.Tokenizer(
        tokenizers.models.BPE(vocab=vocab, merges=merges, ignore_merges=True)
    )
    words = (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
        r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    )
    cut = before.Split(tokenizers.Regex(words), "isolated")
    letters = before.ByteLevel(add_prefix_space=False, use_regex=False)
    engine.pre_tokenizer = before.Sequence([cut, letters])
    return lambda text: list(engine.encode(text, add_special_tokens=False).ids)


def plain(tokenizer: Any) -> Encode:
    return lambda text: list(tokenizer.encode(text, add_special_tokens=False))


@pytest.mark.parametrize("name", REAL)
@settings(max_examples=100, deadline=None)
@given(text=texts)
def test_ids_are_transformers(name: str, text: str) -> None:
    if "spm" in name or name == "phi-3":
        # The mark is a space for them; and unlike SentencePiece, transformers' class puts no
        # space before a text that begins with one.
        text = text.replace(SPACE_MARK, "_").lstrip(" ")
    assert real_tokenizer(name).encode(text) == transformers_of(name)(text)


def test_qwen_composes_and_llama_does_not() -> None:
    qwen, llama = real_tokenizer("qwen2"), real_tokenizer("llama-bpe")
    assert qwen.encode(COMBINED) == qwen.encode("café") == [924, 58858]
    assert qwen.encode(f"<|im_start|>{COMBINED}", parse_special=True)[1:] == [924, 58858]
    assert qwen.encode_inside(COMBINED) == [924, 58858]
    assert llama.decode(llama.encode(COMBINED)) == COMBINED


CLASSES = {  # transformers' classes, and a name of each that we know
    "qwen2": "Qwen2Tokenizer",
    "qwen35": "Qwen3_5Tokenizer",
    "command-r": "CohereTokenizer",
    "olmo": "GPTNeoXTokenizer",
    "mpt": "GPTNeoXTokenizer",
    "gpt-2": "GPT2Tokenizer",
}


@pytest.mark.parametrize("pre", CLASSES)
@settings(max_examples=50, deadline=None)
@given(text=texts)
def test_every_class_of_transformers(pre: str, text: str) -> None:
    ours, theirs = both(pre)
    assert ours.encode(text) == theirs(text)


@cache
def both(pre: str) -> tuple[Tokenizer, Encode]:
    """Two tokenizers with one small vocabulary: every byte, "é" and some more."""
    transformers = pytest.importorskip("transformers")
    merges = [("Ã", "©"), ("Ì", "ģ"), ("e", "Ì"), ("Ġ", "a"), ("a", "o"), ("c", "a")]
    metadata = bpe_metadata(merges, {"<|endoftext|>": 3}, pre=pre)
    vocab, pairs = pieces_of(metadata)
    ends = dict.fromkeys(
        ("unk_token", "bos_token", "eos_token", "pad_token", "cls_token", "sep_token",
         "mask_token"), "<|endoftext|>",
    )  # fmt: skip
    made = getattr(transformers, CLASSES[pre])(vocab=vocab, merges=pairs, **ends)
    return Tokenizer.from_gguf_metadata(metadata), plain(made)


@pytest.mark.parametrize("pre", sorted(PRE_TOKENIZERS))
def test_text_is_kept_or_composed(pre: str) -> None:
    tokenizer = Tokenizer.from_gguf_metadata(bpe_metadata([], pre=pre))
    text = f"{COMBINED} \u1112\u1161\u11ab ﬁ½"
    wanted = unicodedata.normalize("NFC", text) if PRE_TOKENIZERS[pre].is_nfc else text
    assert tokenizer.decode(tokenizer.encode(text)) == wanted
