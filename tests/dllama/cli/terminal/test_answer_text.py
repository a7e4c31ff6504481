"""Answers as `dllama run` shows them."""

from __future__ import annotations

import pytest

from dllama.cli.terminal.answer_text import answer_text
from tests.api.harmony_model import TEMPLATE, harmony_tokenizer
from tests.api.serving import tokenizer

THOUGHT = "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant"
ANSWER = THOUGHT + "<|channel|>final<|message|>Fine, < 3."


def test_the_text_of_an_answer_in_channels_and_its_thoughts(
    capsys: pytest.CaptureFixture[str],
) -> None:
    codec = harmony_tokenizer()
    shown = answer_text(codec, (TEMPLATE,), "…<|start|>assistant")
    ids = codec.encode(ANSWER, parse_special=True)
    assert "".join([*(shown.push([i]) for i in ids), shown.flush()]) == "Fine, < 3."
    assert capsys.readouterr().err == "Hm.\n"


def test_other_answers_are_shown_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    shown = answer_text(tokenizer(), ("{{ tools }}<tool_call>",), "")
    said = shown.push(tokenizer().encode("<think>Hm.</think>Fine")) + shown.flush()
    assert (said, capsys.readouterr().err) == ("<think>Hm.</think>Fine", "")
