"""The evaluation's own parts, and the engine behind it on a model with random weights."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dllama.models import model_shapes
from dllama.qtypes import QType
from examples.demo_model import evaluate as evaluate_module
from examples.demo_model.answering import Answerer
from examples.demo_model.data.conversations import Writer
from examples.demo_model.data.dialogue import segments
from examples.demo_model.evaluate import (
    BEGIN,
    CARD,
    END,
    Checked,
    Evaluation,
    Unended,
    card_section,
    scores,
    update_card,
)
from examples.demo_model.export import export_gguf
from examples.demo_model.paths import OUT
from examples.demo_model.tokenizer import tokenizer_metadata, train_tokenizer
from tests.examples.test_export import CONFIG

SHIPPED = Path(__file__).resolve().parents[2] / OUT
RESULT = Evaluation(
    model="m.gguf",
    n_bytes=7_000_000,
    checked=[Checked("a.b", "?", "right", []), Checked("a.c", "?", "wrong", ["--port"])],
    n_stop_prompts=200,
    unended=[Unended("go on", "and on and on")],
    longest=300,
    examples=[("hello", "Hello!")],
)


def test_scores_count_what_is_right() -> None:
    assert "1 of 2 (50.0%)" in scores(RESULT)
    assert "199 of 200" in scores(RESULT)
    assert "| a | 1 | 2 |" in card_section(RESULT)
    assert RESULT.to_json()["n_right"] == 1


def test_the_card_is_updated_between_its_markers(tmp_path: Path) -> None:
    card = tmp_path / "card.md"
    card.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    update_card(card, "new")
    assert card.read_text() == f"before\n{BEGIN}\nnew\n{END}\nafter\n"
    card.write_text("no markers")
    with pytest.raises(ValueError, match="lacks the lines"):
        update_card(card, "new")


def test_the_real_card_has_its_markers() -> None:
    text = CARD.read_text()
    assert text.count(BEGIN) == text.count(END) == 1


def test_answers_come_from_the_engine_and_long_ones_are_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Random weights answer nonsense, but the way from conversation to verdict is the real one."""
    texts = (s.text for d in Writer(15).documents(300) for s in segments(d))
    metadata = tokenizer_metadata(train_tokenizer(texts, vocab_size=512))
    tokens = metadata["tokenizer.ggml.tokens"]
    assert isinstance(tokens, list)
    config = replace(CONFIG, vocab_size=len(tokens))
    rng = np.random.default_rng(0)
    weights = {n: rng.standard_normal(s, np.float32) for n, s in model_shapes(config).items()}
    path = tmp_path / "m.gguf"
    export_gguf(path, config, weights, metadata, QType.Q8_0)
    chats = [[{"role": "user", "content": text}] for text in ("hello", "What is dllama?")]
    with Answerer(path, threads=1) as answerer:
        answers = answerer.answer(chats, max_tokens=12)
        assert answers == answerer.answer(chats, max_tokens=12)
    assert all(a.n_tokens == 12 or a.is_complete for a in answers)
    monkeypatch.setattr(evaluate_module, "MAX_TOKENS", 4)
    monkeypatch.setattr(evaluate_module, "stop_conversations", lambda: chats)
    result = evaluate_module.evaluate(path, threads=1)
    assert result.n_right < len(result.checked) // 10
    assert result.n_stop_prompts == 2 and result.longest <= 4


@pytest.mark.skipif(not SHIPPED.exists(), reason="the trained model is not in this checkout")
def test_the_shipped_model_answers_what_newcomers_ask() -> None:
    asked = {
        "What is dllama?": "computers",
        "How do I start a worker?": "dllama-worker",
        "hello": "hello",
    }
    chats = [[{"role": "user", "content": text}] for text in asked]
    with Answerer(SHIPPED, threads=1) as answerer:
        answers = answerer.answer(chats, max_tokens=300)
    for answer, wanted in zip(answers, asked.values(), strict=True):
        assert wanted in answer.text.lower()
        assert answer.is_complete
    assert SHIPPED.stat().st_size <= 8_000_000
