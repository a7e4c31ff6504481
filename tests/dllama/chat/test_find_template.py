"""Which template is taken: the one asked for, the model's own, ChatML."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from dllama.chat import find_template
from dllama.chat.builtin_templates import BUILTIN_TEMPLATES
from dllama.errors import TemplateError
from dllama.tokenizer import Tokenizer
from dllama.tokenizer.gguf_vocabulary import vocabulary_of_metadata
from tests.dllama.chat.conversations import TOOLS, user
from tests.dllama.tokenizer.vocabularies import bpe_metadata

METADATA = bpe_metadata([], {"<|b|>": 3, "<|e|>": 3}) | {
    "tokenizer.ggml.bos_token_id": 256,
    "tokenizer.ggml.eos_token_id": 257,
}
OWN = METADATA | {"tokenizer.chat_template": "{{ bos_token }}own{{ eos_token }}"}
HI = [user("Hi")]


def test_a_model_without_a_template_gets_chatml() -> None:
    template = find_template(METADATA)
    assert template.source == BUILTIN_TEMPLATES["chatml"]
    assert template.render(HI) == "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    assert find_template({}).source == template.source


def test_the_models_own_is_taken_with_its_special_texts() -> None:
    assert find_template(OWN).render(HI) == "<|b|>own<|e|>"
    assert find_template(OWN, None, tokenizer=Tokenizer.from_gguf_metadata(OWN)).render(
        HI
    ) == find_template(OWN).render(HI)


def test_the_models_own_for_tools() -> None:
    metadata = OWN | {"tokenizer.chat_template.tool_use": "with tools"}
    template = find_template(metadata)
    assert template.render(HI) == "<|b|>own<|e|>"
    assert template.render(HI, TOOLS) == "with tools"


def test_the_template_of_a_separate_tokenizer() -> None:
    plain = vocabulary_of_metadata(METADATA)
    tokenizer = Tokenizer(replace(plain, chat_templates={"default": "{{ eos_token }}"}))
    assert find_template({}, tokenizer=tokenizer).render(HI) == "<|e|>"


def test_override_by_name_file_and_text(tmp_path: Path) -> None:
    path = tmp_path / "mine.jinja"
    path.write_text("é{{ bos_token }}", encoding="utf-8")
    assert find_template(OWN, str(path)).render(HI) == "é<|b|>"
    assert find_template(OWN, "GEMMA").source == BUILTIN_TEMPLATES["gemma"]
    assert find_template(OWN, "{{ messages[0].content }}!").render(HI) == "Hi!"


def test_a_byte_order_mark_is_no_part_of_a_template(tmp_path: Path) -> None:
    path = tmp_path / "mine.jinja"
    path.write_text("é{{ bos_token }}", encoding="utf-8-sig")
    assert find_template(OWN, str(path)).render(HI) == "é<|b|>"
    assert find_template(OWN, "\ufeff{{ bos_token }}").render(HI) == "<|b|>"
    metadata = METADATA | {
        "tokenizer.chat_template": "\ufeff{{ bos_token }}",
        "tokenizer.chat_template.tool_use": "\ufeff{{ tools | length }}",
    }
    own = find_template(metadata)
    assert (own.source, own.render(HI), own.render(HI, TOOLS)) == ("{{ bos_token }}", "<|b|>", "2")
    tokenizer = Tokenizer.from_gguf_metadata(metadata)
    assert find_template({}, tokenizer=tokenizer).render(HI) == "<|b|>"


def test_an_unknown_override_names_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(TemplateError, match=r"'nosuch'.*chatml, llama2.*No such file"):
        find_template(OWN, "nosuch")
    with pytest.raises(TemplateError, match="cannot be read"):
        find_template(OWN, str(tmp_path))
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(TemplateError, match="no UTF-8 text"):
        find_template(OWN, str(tmp_path / "binary"))
    (tmp_path / "large").write_bytes(b"x" * (2 << 20))
    with pytest.raises(TemplateError, match="2097152 bytes"):
        find_template(OWN, str(tmp_path / "large"))


def test_a_broken_template_of_the_model_is_named_so() -> None:
    with pytest.raises(TemplateError, match="the model's own"):
        find_template(METADATA | {"tokenizer.chat_template": "{% for %}"})
