"""Conversations that Ollama's clients keep as tokens, with the chat templates of real models."""

from __future__ import annotations

import pytest

from api.answers.reasoning import tags_of
from api.requests.ollama.prompting import after_context, next_turn
from api.requests.prompts.conversation import Conversation, message
from api.requests.prompts.prompting import encode, render
from api.served_model import ServedModel
from api.tools.dialects import dialect_of
from dllama.chat.chat_template import ChatTemplate
from tests.api.serving import tokenizer
from tests.shared_data import shared_file, shared_names

# A template for tools alone is given none here.
NAMES = [
    name.removeprefix("templates/")
    for name in shared_names("templates/*.jinja")
    if "tool_use" not in name
]


def model_of(name: str) -> ServedModel:
    source = shared_file(f"templates/{name}").read_text(encoding="utf-8")
    template = ChatTemplate(source, bos_token="<s>", eos_token="</s>")
    return ServedModel(
        name, tokenizer(), template, None, 4096, 0, tuple(tokenizer().eog_ids),  # type: ignore[arg-type]
        tool_dialect=dialect_of(template.sources), think_tags=tags_of(template.source),
    )  # fmt: skip


def test_templates_are_there() -> None:
    shared_file("templates")
    assert len(NAMES) >= 9


@pytest.mark.parametrize("system", [[], [message("system", "Be brief.")]])
@pytest.mark.parametrize("name", NAMES)
def test_the_next_turn_is_the_end_of_the_whole_conversation(name: str, system: list) -> None:
    model = model_of(name)
    first, answer, second = (
        message("user", "Hi"), message("assistant", "Fine."), message("user", "And you?")
    )  # fmt: skip
    turn = next_turn(model, Conversation([*system, second]))
    whole = render(model, Conversation([*system, first, answer, second]))
    assert whole.endswith("Fine." + turn) and turn.count("And you?") == 1
    # A context begins with the system prompt; Mistral's writes it into the last turn, once more.
    assert "Be brief." not in turn or "Mistral" in name


@pytest.mark.parametrize("name", [name for name in NAMES if "Qwen2.5" in name or "3.2" in name])
def test_a_context_is_what_the_whole_conversation_would_be(name: str) -> None:
    model = model_of(name)
    first, second = message("user", "Hi"), message("user", "And you?")
    prompt = encode(model, render(model, Conversation([first])))
    context = [*prompt, *model.tokenizer.encode("Fine.")]
    turn = next_turn(model, Conversation([second]))
    said = after_context(model, context, turn)
    whole = render(model, Conversation([first, message("assistant", "Fine."), second]))
    assert model.tokenizer.decode(said) == model.tokenizer.decode(encode(model, whole))
