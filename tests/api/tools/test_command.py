"""Answers of Cohere's Command models: thoughts, calls, a text between marks, citations in it."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest

from api.answers.plan import AnswerPlan, chat_plan
from api.answers.reasoning import ReasoningFormat, tags_of
from api.answers.stop import StopScanner, StopTable
from api.requests.answer_format import AnswerFormat
from api.requests.openai import parse_conversation
from api.requests.prompts.conversation import Conversation
from api.requests.prompts.prompting import render
from api.served_model import ServedModel
from api.tools.dialects import COMMAND, dialect_of
from benchmarks.writers.filler_vocabulary import CONTROL, SPECIALS, bpe_metadata
from dllama.chat import template_stop_ids
from dllama.chat.chat_template import ChatTemplate
from dllama.constraints.grammars import json_part
from dllama.constraints.masks import GrammarMasks
from dllama.constraints.vocabulary_bytes import VocabularyBytes
from dllama.tokenizer.tokenizer import Tokenizer
from tests.api.tools.own_templates import OWN_TEMPLATES
from tests.api.tools.test_round_trips import ARGUMENTS, QUESTION, TOOLS, read

MARKS = [
    "<|START_THINKING|>", "<|END_THINKING|>", "<|START_ACTION|>", "<|END_ACTION|>",
    "<|START_RESPONSE|>", "<|END_RESPONSE|>", "<|END_OF_TURN_TOKEN|>",
]  # fmt: skip
USER_DEFINED = 4
SIZE = 352
THINKS = "<|START_THINKING|>They <ask>.<|END_THINKING|>"
CALL = (
    '<|START_ACTION|>[\n    {"tool_call_id": "0", "tool_name": "weather", "parameters": '
    '{"city": "Ulm", "days": 3}}\n]<|END_ACTION|>'
)
CALLED = {"name": "weather", "arguments": '{"city": "Ulm", "days": 3}'}


@cache
def tokenizer(kind: int = CONTROL) -> Tokenizer:
    """The filler vocabulary with Command's marks, of this type, in place of its last merges."""
    metadata = bpe_metadata(SIZE)
    tokens, merges = metadata["tokenizer.ggml.tokens"], metadata["tokenizer.ggml.merges"]
    types = metadata["tokenizer.ggml.token_type"]
    assert isinstance(tokens, list) and isinstance(merges, list) and isinstance(types, np.ndarray)
    at = slice(-len(SPECIALS) - len(MARKS), -len(SPECIALS))
    tokens[at], types[at] = MARKS, kind
    metadata["tokenizer.ggml.merges"] = merges[: -len(MARKS)]
    metadata["tokenizer.ggml.eos_token_id"] = tokens.index("<|END_OF_TURN_TOKEN|>")
    metadata["tokenizer.ggml.add_bos_token"] = False
    return Tokenizer.from_gguf_metadata(metadata)


@cache
def model(name: str = "Command-R7B", kind: int = CONTROL) -> ServedModel:
    template = ChatTemplate(OWN_TEMPLATES[name])
    stops = frozenset(tokenizer(kind).eog_ids) | template_stop_ids(template, tokenizer(kind))
    return ServedModel(
        name, tokenizer(kind), template, None, 4096, 0, tuple(sorted(stops)),  # type: ignore[arg-type]
        tool_dialect=dialect_of(template.sources), think_tags=tags_of(template.source),
    )  # fmt: skip


def asking(*messages: object, **more: object) -> Conversation:
    return parse_conversation({"messages": list(messages), "tools": TOOLS, **more})


def plan_of(
    served: ServedModel, asked: Conversation, form: AnswerFormat | None = None
) -> AnswerPlan:
    return chat_plan(served, asked, form, render(served, asked))


def shown(served: ServedModel, plan: AnswerPlan, text: str) -> str:
    """What the decoder makes of the model's tokens, up to one that ends the answer."""
    ids = served.tokenizer.encode(text, parse_special=True)
    end = next((i for i, token in enumerate(ids) if token in served.stop_ids), len(ids))
    return served.tokenizer.decoder(skip_special=True, kept=plan.kept).push(ids[:end])


def said(served: ServedModel, asked: Conversation, text: str) -> tuple[dict[str, Any], str]:
    plan = plan_of(served, asked)
    return read(plan, shown(served, plan, text))


def allows(served: ServedModel, plan: AnswerPlan, text: str) -> bool:
    """Whether the whole text is of the plan's grammar."""
    assert plan.grammar is not None
    codec = served.tokenizer
    masks = GrammarMasks(VocabularyBytes.of(codec), codec.vocab_size)  # type: ignore[arg-type]
    constraint = masks.make(plan.grammar, served.stop_ids)
    for token in codec.encode(text, parse_special=True):
        if token in served.stop_ids:
            return bool(constraint.mask()[token])
        if not constraint.mask()[token]:
            return False
        constraint.advance(token)
    return bool(constraint.mask()[list(served.stop_ids)].any())


@pytest.mark.parametrize("kind", [CONTROL, USER_DEFINED])
def test_marks_are_no_content_whatever_their_type(kind: int) -> None:
    served = model(kind=kind)
    assert served.tool_dialect is COMMAND
    for tools in (TOOLS, None):
        asked = asking(QUESTION, tools=tools)
        for answer in ("<|START_RESPONSE|>It is <fine>.<|END_RESPONSE|>", "It is <fine>."):
            for before, thoughts in ((THINKS, "They <ask>."), ("", None)):
                message, reason = said(served, asked, before + answer)
                assert message["content"] == "It is <fine>."
                assert message.get("reasoning_content") == thoughts
                assert reason == "stop" and "tool_calls" not in message


@pytest.mark.parametrize("kind", [CONTROL, USER_DEFINED])
def test_calls_come_after_a_plan(kind: int) -> None:
    served = model(kind=kind)
    message, reason = said(served, asking(QUESTION), THINKS + CALL)
    assert reason == "tool_calls" and message["content"] is None
    assert message["reasoning_content"] == "They <ask>."
    assert [call["function"] for call in message["tool_calls"]] == [CALLED]


def test_ids_of_calls_are_never_those_of_another_turn() -> None:
    """The templates look for the first call of an id, and models begin to count anew."""
    ids = {said(model(), asking(QUESTION), CALL)[0]["tool_calls"][0]["id"] for _ in range(8)}
    assert len(ids) == 8


@pytest.mark.parametrize("kind", [CONTROL, USER_DEFINED])
@pytest.mark.parametrize(
    ("choice", "allowed", "refused"),
    [
        ("auto", ["<|START_RESPONSE|>Fine.<|END_RESPONSE|>", "Fine.", CALL], []),
        ("required", [CALL], ["<|START_RESPONSE|>Fine.<|END_RESPONSE|>", "Fine."]),
        ({"type": "function", "function": {"name": "time"}},
         [CALL.replace("weather", "time")], [CALL, "Fine."]),
    ],
)  # fmt: skip
def test_choices_hold_between_marks(
    kind: int, choice: object, allowed: list[str], refused: list[str]
) -> None:
    served = model(kind=kind)
    plan = plan_of(served, asking(QUESTION, tool_choice=choice))
    wrong = [CALL.replace('"days"', '"weeks"'), CALL.removesuffix("<|END_ACTION|>")]
    for before in ("", THINKS):
        assert [text for text in allowed if not allows(served, plan, before + text)] == []
        assert [text for text in refused + wrong if allows(served, plan, before + text)] == []


def test_a_form_is_that_of_the_text() -> None:
    form = AnswerFormat(json_part({"type": "object", "properties": {}}), "response_format")
    plan = plan_of(model(), asking(QUESTION, tools=None), form)
    for text in ("{}", "<|START_RESPONSE|>{}<|END_RESPONSE|>", THINKS + "<|START_RESPONSE|>{}"):
        assert allows(model(), plan, text), text
    assert not allows(model(), plan, "<|START_RESPONSE|>Fine.")


def test_the_history_keeps_the_plan_and_the_calls() -> None:
    """Also where the plan was sent as text, which the template has no other place for."""
    call = {"id": "call_1", "type": "function", "function": CALLED}
    result = {"role": "tool", "tool_call_id": "call_1", "content": "sunny"}
    for plan in ({"reasoning_content": "I look.", "content": "Wait."}, {"content": "I look."}):
        message = {"role": "assistant", "tool_calls": [call], **plan}
        prompt = render(model(), asking(QUESTION, message, result))
        assert f"<|START_THINKING|>I look.<|END_THINKING|>{CALL}" in prompt
        assert '"tool_call_id": "0", "results": {"0": "sunny"}' in prompt


@pytest.mark.parametrize(
    ("kwargs", "is_open"),
    [({}, True), ({"enable_thinking": False}, False), ({"enable_thinking": True}, True)],
)
def test_command_a_reasoning_thinks_unless_it_must_not(
    kwargs: dict[str, object], is_open: bool
) -> None:
    served = model("Command-A-Reasoning")
    asked = asking(QUESTION, chat_template_kwargs=kwargs)
    prompt = render(served, asked)
    assert prompt.endswith(
        "<|START_THINKING|>" if is_open else "<|START_THINKING|><|END_THINKING|>"
    )
    thoughts = "They ask.<|END_THINKING|>" if is_open else ""
    for end, content in (("<|START_RESPONSE|>Fine.<|END_RESPONSE|>", "Fine."), (CALL, None)):
        assert allows(served, plan_of(served, asked), thoughts + end)
        message, _ = said(served, asked, thoughts + end)
        assert message["content"] == content
        assert message.get("reasoning_content") == ("They ask." if is_open else None)
        assert ("tool_calls" in message) is (content is None)


def test_thoughts_may_stay_in_the_text() -> None:
    served = model()
    asked = replace(asking(QUESTION), reasoning=ReasoningFormat.NONE)
    message, _ = said(served, asked, THINKS + "<|START_RESPONSE|>Fine.")
    assert message["content"] == THINKS + "Fine."


def test_citations_are_told_beside_the_text() -> None:
    served, asked = model(), asking(QUESTION)
    thinks = THINKS.replace("<ask>", "<co>ask</co: 0:[1]>")
    message, _ = said(
        served, asked,
        thinks + "<|START_RESPONSE|>It is <co>sunny</co: 0:[0]> and <co>27 °C</co: 0:[0,2],1:[0]>.",
    )  # fmt: skip
    assert message["content"] == "It is sunny and 27 °C."
    assert message["reasoning_content"] == "They ask."
    assert message["citations"] == [
        {"start": 6, "end": 11, "text": "sunny", "sources": [{"tool_call": 0, "results": [0]}]},
        {"start": 16, "end": 21, "text": "27 °C",
         "sources": [{"tool_call": 0, "results": [0, 2]}, {"tool_call": 1, "results": [0]}]},
    ]  # fmt: skip


def test_a_stop_string_may_end_within_a_citation() -> None:
    plan = plan_of(model(), asking(QUESTION, tools=None))
    reader = plan.reader(0, StopScanner(StopTable(("is sunny",))))
    assert reader is not None
    text = "It <co>is</co: 0:[0]> sunny <co>there</co: 0:[0]>"
    parts = [part for char in text for part in reader.push(char)] + reader.finish()
    assert "".join(part.text for part in parts) in ("It ", "It is")
    assert reader.is_over


def test_arguments_are_exact() -> None:
    text = CALL.replace('{"city": "Ulm", "days": 3}', json.dumps(ARGUMENTS, ensure_ascii=False))
    message, _ = said(model(), asking(QUESTION), text)
    assert json.loads(message["tool_calls"][0]["function"]["arguments"]) == ARGUMENTS
