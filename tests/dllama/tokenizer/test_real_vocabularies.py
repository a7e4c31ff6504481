"""The four real vocabularies give the ids that their makers' tokenizers give, in all cases."""

from __future__ import annotations

import random

import pytest

from dllama.tokenizer import Tokenizer
from tests.dllama.tokenizer.vocabularies import REAL, real_metadata, real_tokenizer
from tests.shared_data import shared_file

SEPARATOR = "\n__ggml_vocab_test__\n"


def cases(name: str) -> list[tuple[str, list[int]]]:
    base = f"vocab/ggml-vocab-{name}.gguf"
    texts = shared_file(base + ".inp").read_bytes().decode().split(SEPARATOR)
    lines = shared_file(base + ".out").read_text().split("\n")
    assert texts[-1] == "" and lines[-1] == "" and len(texts) == len(lines)
    wanted = [[int(word) for word in line.split()] for line in lines]
    return list(zip(texts, wanted, strict=True))[:-1]


@pytest.mark.parametrize("name", REAL)
def test_ids_equal_the_expected_ones(name: str) -> None:
    tokenizer = real_tokenizer(name)
    found = cases(name)
    assert len(found) == 46
    for text, ids in found:
        assert tokenizer.encode(text) == ids, text


@pytest.mark.parametrize("name", REAL)
def test_decoding_gives_the_text_back(name: str) -> None:
    tokenizer = real_tokenizer(name)
    for text, ids in cases(name):
        assert tokenizer.decode(ids) == text


@pytest.mark.parametrize("name", REAL)
def test_special_tokens_are_text_unless_asked_for(name: str) -> None:
    tokenizer = real_tokenizer(name)
    text = f"a{tokenizer.eos_text}b{tokenizer.bos_text} <|eot_id|><|im_end|>"
    plain = tokenizer.encode(text)
    assert not any(tokenizer.is_control(token) for token in plain)
    assert tokenizer.decode(plain) == text
    parsed = tokenizer.encode(text, parse_special=True)
    assert tokenizer.eos_id in parsed and tokenizer.bos_id in parsed
    if name != "phi-3":  # Phi-3 drops white space after its special tokens
        assert tokenizer.decode(parsed) == text


WANTED_ENDS = {
    "llama-spm": {"</s>"},
    "phi-3": {"</s>", "<|endoftext|>", "<|end|>"},
    "qwen2": {"<|endoftext|>", "<|im_end|>"},
    "llama-bpe": {"<|end_of_text|>", "<|eot_id|>"},
}


@pytest.mark.parametrize("name", REAL)
def test_every_end_of_generation_is_known(name: str) -> None:
    tokenizer = real_tokenizer(name)
    assert {tokenizer.token_text(token) for token in tokenizer.eog_ids} == WANTED_ENDS[name]


@pytest.mark.parametrize("name", REAL)
def test_bos_is_added_where_the_model_wants_it_and_never_twice(name: str) -> None:
    tokenizer = real_tokenizer(name)
    assert tokenizer.add_bos == (name != "qwen2")
    bos = [tokenizer.bos_id] if tokenizer.add_bos else []
    assert tokenizer.encode("Hi", add_special=True) == bos + tokenizer.encode("Hi")
    written = tokenizer.encode(tokenizer.bos_text + "Hi", add_special=True, parse_special=True)
    assert written == [tokenizer.bos_id, *tokenizer.encode("Hi")]
    assert tokenizer.encode("", add_special=True) == bos
    assert tokenizer.encode("") == []


@pytest.mark.parametrize("name", REAL)
def test_no_prompt_ends_with_eos(name: str) -> None:
    fine_tuned = real_metadata(name) | {"tokenizer.ggml.add_eos_token": True}
    tokenizer, text = Tokenizer.from_gguf_metadata(fine_tuned), "Once upon a time"
    assert tokenizer.encode(text, add_special=True)[-1] == tokenizer.eos_id
    assert tokenizer.encode_prompt(text) == real_tokenizer(name).encode_prompt(text)
    assert tokenizer.eos_id not in tokenizer.encode_prompt(text)


def test_white_space_after_special_tokens_of_phi3_is_dropped() -> None:
    tokenizer = real_tokenizer("phi-3")
    tight = tokenizer.encode("<|user|>Hi<|end|><|assistant|>", parse_special=True)
    wide = tokenizer.encode("<|user|>\nHi<|end|>\n<|assistant|>\n", parse_special=True)
    assert tight == wide


@pytest.mark.parametrize("name", REAL)
def test_long_runs_do_not_blow_up(name: str) -> None:
    """200 kB of one thing: quadratic work would not end within the time limit of a test."""
    tokenizer = real_tokenizer(name)
    mixed = "".join(random.Random(1).choices("abc \n0.'<|一é", k=200_000))
    for text in (
        "a" * 200_000,
        " " * 200_000,
        "1" * 200_000,
        "\n" * 200_000,
        "<|" * 100_000,
        mixed,
    ):
        assert tokenizer.decode(tokenizer.encode(text, parse_special=True)) == text


@pytest.mark.parametrize("name", REAL)
def test_odd_characters_survive(name: str) -> None:
    tokenizer = real_tokenizer(name)
    for text in ("\0", "a\0b", "\ufeff", "\uffff", "\U0010ffff", "x\u0301", "\r\n", "🤷🏽‍♂️"):
        assert tokenizer.decode(tokenizer.encode(text)) == text
    assert tokenizer.decode(tokenizer.encode("x\ud83dy")) == "x\ufffdy"
    assert tokenizer.decode(tokenizer.encode("\ud83d\ude00")) == "😀"
