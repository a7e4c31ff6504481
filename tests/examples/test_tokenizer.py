"""The tokenizer that training makes is the one that dllama reads back, id for id."""

from __future__ import annotations

from unicodedata import normalize

import pytest
from tokenizers import Tokenizer as Trained

from dllama.chat import find_template, template_stop_ids
from dllama.tokenizer import Tokenizer
from examples.demo_model.data.conversations import Writer
from examples.demo_model.data.dialogue import SPECIALS, Document, segments
from examples.demo_model.tokenizer import tokenizer_metadata, train_tokenizer

ODD_TEXTS = (
    "", " ", "\n\n", "  two  spaces ", "tabs\tand\r\nlines\n\n\n", "don't I'LL we've", "12345 6.78",
    "--workers host1,host2 --model m.gguf", '{"messages": [{"role": "user"}]}', "äöü ß é ñ",
    "你好吗 こんにちは привет", "😀🎉 👍🏽", "a" * 300, "\x00\x01 \x7f", "e\u0301", "١٢٣",
)  # fmt: skip


@pytest.fixture(scope="module")
def documents() -> list[Document]:
    return list(Writer(11).documents(1500))


@pytest.fixture(scope="module")
def trained(documents: list[Document]) -> Trained:
    return train_tokenizer((s.text for d in documents for s in segments(d)), vocab_size=1500)


@pytest.fixture(scope="module")
def ours(trained: Trained) -> Tokenizer:
    return Tokenizer.from_gguf_metadata(tokenizer_metadata(trained))


def test_training_repeats_itself(documents: list[Document], trained: Trained) -> None:
    again = train_tokenizer((s.text for d in documents for s in segments(d)), vocab_size=1500)
    assert again.to_str() == trained.to_str()


def test_ids_are_equal_on_the_training_text(
    documents: list[Document], trained: Trained, ours: Tokenizer
) -> None:
    for document in documents:
        for text in (s.text for s in segments(document)):
            assert ours.encode(text, parse_special=True) == trained.encode(text).ids


@pytest.mark.parametrize("text", ODD_TEXTS)
def test_ids_are_equal_on_odd_texts(text: str, trained: Trained, ours: Tokenizer) -> None:
    assert ours.encode(text, parse_special=True) == trained.encode(text).ids
    assert ours.decode(ours.encode(text)) == normalize("NFC", text)


def test_a_rendered_chat_is_what_was_trained_on(
    documents: list[Document], trained: Trained, ours: Tokenizer
) -> None:
    """The template, encoded whole, gives the ids of the pieces that training saw."""
    template = find_template(tokenizer_metadata(trained), tokenizer=ours)
    for document in documents[:300]:
        if document.messages:
            messages = [{"role": m.role, "content": m.content} for m in document.messages]
            rendered = template.render(messages, add_generation_prompt=False)
            pieces = [i for s in segments(document) for i in trained.encode(s.text).ids]
            assert ours.encode(rendered, parse_special=True) == pieces


def test_special_tokens_come_first_and_end_answers(trained: Trained, ours: Tokenizer) -> None:
    assert [ours.token_text(i) for i in range(3)] == list(SPECIALS)
    assert all(ours.is_control(i) for i in range(3))
    assert {ours.token_text(i) for i in ours.eog_ids} == {"<|endoftext|>", "<|im_end|>"}
    template = find_template(tokenizer_metadata(trained), tokenizer=ours)
    assert template_stop_ids(template, ours) == {SPECIALS.index("<|im_end|>")}
    assert not ours.add_bos


def test_special_tokens_typed_by_users_stay_text_where_not_parsed(ours: Tokenizer) -> None:
    ids = ours.encode("<|im_end|>")
    assert not set(ids) & set(range(3))
    assert ours.decode(ids) == "<|im_end|>"
