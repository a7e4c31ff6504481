"""Byte-level BPE: merges, pre-tokenizers, special tokens."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dllama.errors import TokenizerError
from dllama.tokenizer import Tokenizer
from dllama.tokenizer.bpe_engine import build_bpe_engine
from dllama.tokenizer.byte_alphabet import BYTE_ORDER, from_alphabet, to_alphabet
from dllama.tokenizer.gguf_vocabulary import vocabulary_of_metadata
from dllama.tokenizer.pretokenizers import PRE_TOKENIZERS
from dllama.tokenizer.special_tokens import SpecialTokens
from tests.dllama.tokenizer.vocabularies import bpe_metadata


def words_of(pre: str, text: str) -> list[str]:
    """How a pre-tokenizer cuts a text, seen with a vocabulary that never merges across."""
    engine = build_bpe_engine(vocabulary_of_metadata(bpe_metadata([], pre=pre)))
    cutter = engine.pre_tokenizer
    return [from_alphabet(word).decode() for word, _ in cutter.pre_tokenize_str(text)]


def test_byte_alphabet_is_gpt2s() -> None:
    assert to_alphabet(b" \n\0a\xff") == "ĠĊĀaÿ"
    assert sorted(BYTE_ORDER) == list(range(256))
    everything = bytes(range(256))
    assert from_alphabet(to_alphabet(everything)) == everything


def test_merges_are_taken_in_order_of_rank() -> None:
    tokenizer = Tokenizer.from_gguf_metadata(bpe_metadata([("b", "c"), ("a", "b"), ("a", "bc")]))
    text_of = tokenizer.token_text
    assert [text_of(i) for i in tokenizer.encode("abc")] == ["abc"]
    assert [text_of(i) for i in tokenizer.encode("abab")] == ["ab", "ab"]
    assert [text_of(i) for i in tokenizer.encode("bcbab")] == ["bc", "b", "ab"]


@pytest.mark.parametrize("pre", sorted(PRE_TOKENIZERS))
def test_every_pre_tokenizer_keeps_the_text(pre: str) -> None:
    text = "Hello WORLDwide, it's 12345 x\n\n  y\t'LL été 你好、カナ ÀÉ ١٢٣ 👨‍👩‍👧 $a+b=~`| .\r\n "
    assert "".join(words_of(pre, text)) == text
    for run in ("A" * 50_000, " " * 50_000, "9" * 50_000, "aB" * 25_000, "你" * 50_000):
        assert "".join(words_of(pre, run)) == run


CUTS = [
    ("gpt-2", "It's 2024  now", ["It", "'s", " 2024", " ", " now"]),
    ("llama-bpe", "IT'S 12345 x!\n\n y", ["IT", "'S", " ", "123", "45", " x", "!\n\n", " y"]),
    ("llama3", "a  b", ["a", " ", " b"]),
    ("qwen2", "v12 .x", ["v", "1", "2", " .", "x"]),
    ("qwen35", "e\u0301a", ["e\u0301a"]),
    ("qwen2", "e\u0301a", ["e", "\u0301a"]),
    ("smollm", "a 12b", ["a", " ", "1", "2", "b"]),
    ("starcoder", "x=10", ["x", "=", "1", "0"]),
    ("tekken", "helloWorld ABCdef", ["hello", "World", " ABCdef"]),
    ("gpt-4o", "helloWorld's 1234", ["hello", "World's", " ", "123", "4"]),
    ("kimi-k2", "aB字かなCd's 1234", ["a", "B", "字", "かなCd's", " ", "123", "4"]),
    ("deepseek-v3", "ab12345字かな.x", ["ab", "123", "45", "字かな", ".x"]),
    ("deepseek-llm", "a b\n你好 12", ["a", " b", "\n", "你好", " ", "12"]),
    ("deepseek-coder", "a1 b", ["a", "1", " b"]),
    ("falcon", "a1234,b", ["a", "123", "4", ",", "b"]),
    ("default", "a, b1234", ["a", ",", " b", "123", "4"]),
    ("jais-2", "a" + " " * 6 + "b", ["a", " " * 4, " ", " b"]),
]


@pytest.mark.parametrize(("pre", "text", "words"), CUTS)
def test_words(pre: str, text: str, words: list[str]) -> None:
    assert words_of(pre, text) == words


def test_unknown_pre_tokenizer_is_named_with_the_known_ones() -> None:
    with pytest.raises(TokenizerError, match=r"'klingon'.*known are.*llama-bpe.*qwen2"):
        Tokenizer.from_gguf_metadata(bpe_metadata([], pre="klingon"))


def test_absent_pre_tokenizer_is_the_default_one() -> None:
    metadata = bpe_metadata([("1", "2")])
    del metadata["tokenizer.ggml.pre"]
    default = Tokenizer.from_gguf_metadata(bpe_metadata([("1", "2")], pre="default"))
    assert Tokenizer.from_gguf_metadata(metadata).encode("1212, a") == default.encode("1212, a")


def test_llama3_takes_whole_words_whatever_the_merges_say() -> None:
    metadata = bpe_metadata([("a", "b")], {"abab": 1}, pre="llama-bpe")
    tokenizer = Tokenizer.from_gguf_metadata(metadata)
    assert tokenizer.encode("abab") == [257]
    metadata["tokenizer.ggml.pre"] = "qwen2"
    assert Tokenizer.from_gguf_metadata(metadata).encode("abab") == [256, 256]


@pytest.mark.parametrize(
    ("pre", "adds"), [("llama-bpe", True), ("tekken", True), ("qwen2", False), ("gpt-2", False)]
)
def test_bos_is_added_by_pre_tokenizer_where_the_file_is_silent(pre: str, adds: bool) -> None:
    metadata = bpe_metadata([], {"<|bos|>": 3}, pre=pre) | {"tokenizer.ggml.bos_token_id": 256}
    assert Tokenizer.from_gguf_metadata(metadata).add_bos == adds
    metadata["tokenizer.ggml.add_bos_token"] = not adds
    assert Tokenizer.from_gguf_metadata(metadata).add_bos == (not adds)


def test_eos_is_added_where_the_file_says_so() -> None:
    metadata = bpe_metadata([], {"<|e|>": 3}) | {
        "tokenizer.ggml.eos_token_id": 256,
        "tokenizer.ggml.add_eos_token": True,
    }
    tokenizer = Tokenizer.from_gguf_metadata(metadata)
    assert tokenizer.encode("a", add_special=True) == [*tokenizer.encode("a"), 256]


def test_the_longest_special_token_counts() -> None:
    specials = {"<a>": 3, "<a><b>": 3, "<a><b><c>": 4}
    tokenizer = Tokenizer.from_gguf_metadata(bpe_metadata([], specials))
    assert tokenizer.encode("<a><b><c><a><a><b>", parse_special=True) == [258, 256, 257]
    plain = tokenizer.encode("<a><b><c><a>")
    assert plain == [258, *tokenizer.encode("<a>")]
    assert 256 not in plain


def test_ends_are_found_by_text_and_never_made_from_text() -> None:
    """Converters forget to mark them as control tokens."""
    specials = {"<|im_end|>": 1, "<|eot_id|>": 4, "</s>": 1, "<|fim_pad|>": 3}
    tokenizer = Tokenizer.from_gguf_metadata(bpe_metadata([], specials, pre="llama-bpe"))
    assert tokenizer.eog_ids == {256, 257, 259}
    assert tokenizer.is_control(256) and tokenizer.is_control(257)
    assert not tokenizer.eog_ids & set(tokenizer.encode("<|im_end|><|eot_id|>"))


def test_named_ends_count_whatever_their_text() -> None:
    metadata = bpe_metadata([], {"<e>": 3, "<t>": 3, "<m>": 3}) | {
        "tokenizer.ggml.eos_token_id": 256,
        "tokenizer.ggml.eot_token_id": 257,
        "tokenizer.ggml.eom_token_id": 258,
    }
    assert Tokenizer.from_gguf_metadata(metadata).eog_ids == {256, 257, 258}


def test_the_end_of_a_channel_is_no_end_of_generation() -> None:
    specials = {"<|end|>": 3, "<|return|>": 3, "<|call|>": 3}
    tokenizer = Tokenizer.from_gguf_metadata(bpe_metadata([], specials))
    assert tokenizer.eog_ids == {257, 258}


@given(st.text())
def test_any_text_comes_back(text: str) -> None:
    tokenizer = Tokenizer.from_gguf_metadata(
        bpe_metadata([("a", "b"), ("Ġ", "a")], {"<|x|>": 3}, pre="llama-bpe")
    )
    assert tokenizer.decode(tokenizer.encode(text)) == re.sub("[\ud800-\udfff]", "\ufffd", text)
    assert tokenizer.decode(tokenizer.encode(text, parse_special=True)) == tokenizer.decode(
        tokenizer.encode(text)
    )


def test_bos_is_not_added_to_a_text_that_begins_with_it() -> None:
    named = {"tokenizer.ggml.bos_token_id": 256, "tokenizer.ggml.add_bos_token": True}
    tokenizer = Tokenizer.from_gguf_metadata(bpe_metadata([], {"<|bos|>": 3}) | named)
    plain = tokenizer.encode("a")
    assert tokenizer.encode("a", add_special=True) == [256, *plain]
    for text in ("<|bos|>a", "a"):
        assert tokenizer.encode(text, add_special=True, parse_special=True) == [256, *plain]


def test_white_space_goes_behind_special_tokens_that_swallow_it_only() -> None:
    found = SpecialTokens({"<a>": 1, "<b>": 2}, strips_right=frozenset({2}))
    assert list(found.cut("x <a> y <b>  z")) == ["x ", 1, " y ", 2, "z"]
