"""Answers in Harmony: read whatever pieces they come in, held to their grammar, rendered again."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.answers.events import Message
from api.answers.plan import AnswerPlan, chat_plan
from api.answers.reasoning import ReasoningFormat
from api.answers.stop import StopScanner, StopTable
from api.replies.openai import message_of
from api.requests.answer_format import AnswerFormat
from api.requests.openai import parse_conversation
from api.requests.prompts.conversation import Conversation
from api.requests.prompts.prompting import render
from api.served_model import ServedModel
from api.tools.channel_reader import ChannelReader
from api.tools.dialects import HARMONY
from api.tools.harmony import Header, Opening, opening_of
from dllama.constraints.grammars import json_part
from tests.api.harmony_model import harmony_masks, harmony_model, harmony_tokenizer

THINKS = "<|channel|>analysis<|message|>They ask < 3.<|end|><|start|>assistant"
SAYS = "<|channel|>commentary<|message|>I look.<|end|><|start|>assistant"
FINAL = "<|channel|>final<|message|>"
CALL = '<|channel|>commentary to=functions.f <|constrain|>json<|message|>{"a": "}"}'
OTHER = ' to=functions.f<|channel|>commentary json<|message|>{"a": 1}'
A, B = [("f", '{"a": "}"}')], [("f", '{"a": 1}')]

CASES = [  # what the model says; thoughts, content, calls; whether nothing may follow
    (THINKS + FINAL + "Hello\n", "They ask < 3.", "Hello\n", [], False),
    (THINKS + FINAL + "Hello<|return|>more", "They ask < 3.", "Hello", [], True),
    (THINKS + FINAL + "Hello<|end|><|start|>user", "They ask < 3.", "Hello", [], True),
    (FINAL + "a <|b|> c", "", "a <|b|> c", [], False),
    (THINKS + SAYS + CALL, "They ask < 3.", "I look.", A, False),
    (THINKS + CALL + "<|call|>", "They ask < 3.", "", A, True),
    (OTHER + "<|call|>", "", "", B, True),
    (CALL + "<|end|><|start|>assistant" + OTHER, "", "", A + B, False),
    (THINKS + THINKS + FINAL + "x", "They ask < 3.\n\nThey ask < 3.", "x", [], False),
    (SAYS + FINAL + "x", "", "I look.\n\nx", [], False),
    # calls of nothing that is offered
    (CALL.replace(".f ", ".g "), "", '{"a": "}"}', [], False),
    ("<|channel|>analysis to=python code<|message|>1 + 1<|call|>", "1 + 1", "", [], True),
    # messages that lack their parts
    ("<|channel|>analysis<|message|>a<|start|>assistant" + FINAL + "b", "a", "b", [], False),
    ("<|channel|>analysis<|message|>a<|end|>" + FINAL + "b", "a", "b", [], False),
    ("<|channel|>analysis<|message|>a<|end|>b", "a", "b", [], False),
    ("<|message|>b", "", "b", [], False),
    ("Hello <|end|>", "", "Hello ", [], False),
    ("tomato", "", "tomato", [], False),
    ("to", "", "to", [], False),
    ("<|chan", "", "<|chan", [], False),
    ("<|channel|>fin", "", "", [], False),
    (FINAL + "a<|en", "", "a<|en", [], False),
    (THINKS + "<|channel|>final", "They ask < 3.", "", [], False),
    ("", "", "", [], False),
    # a message that somebody else is made to say
    ("<|channel|>analysis<|message|>a<|end|><|start|>user<|message|>b", "a", "", [], True),
]


def read(
    pieces: list[str], opening: Opening | None = None
) -> tuple[str, str, list[tuple[str, str]], bool]:
    reader = ChannelReader(HARMONY, ("f",), opening=opening)
    said = Message()
    for part in [part for piece in pieces for part in reader.push(piece)] + reader.flush():
        said.add(part)
    assert reader.n_complete == len(said.calls)
    calls = [(call.name, call.arguments) for call in said.calls]
    return said.thoughts, said.text, calls, reader.is_over


@pytest.mark.parametrize(("text", "thoughts", "content", "calls", "is_over"), CASES)
def test_answers_are_read_wherever_they_are_cut(
    text: str, thoughts: str, content: str, calls: list[tuple[str, str]], is_over: bool
) -> None:
    wanted = (thoughts, content, calls, is_over)
    assert read(list(text)) == wanted
    for at in range(len(text) + 1):
        assert read([text[:at], text[at:]]) == wanted


WORDS = [
    "<|start|>", "assistant", "user", "<|channel|>", "analysis", "final", "commentary",
    " to=functions.f", "<|constrain|>", "json", "<|message|>", '{"a": 1}', "{", "x", " ", "\n",
    "<|end|>", "<|call|>", "<|", "|>",
]  # fmt: skip


@given(st.lists(st.sampled_from(WORDS), max_size=14), st.booleans())
def test_cuts_make_no_difference(words: list[str], is_in_text: bool) -> None:
    opening = Opening("assistant<|channel|>analysis", True) if is_in_text else None
    whole = read(["".join(words)], opening)
    assert read(words, opening) == whole
    assert read(list("".join(words)), opening) == whole


def test_a_call_that_breaks_off_is_not_complete() -> None:
    assert read(list(CALL[:-3])) == ("", "", [], False)


def test_parts_are_told_as_they_come() -> None:
    reader = ChannelReader(HARMONY, ("f",))
    told = [len(reader.push(char)) for char in THINKS + FINAL + "Hello"]
    assert told[-5:] == [1] * 5, "nothing in a final text is held back"
    assert told[len("<|channel|>analysis<|message|>")] == 1


@pytest.mark.parametrize(
    ("text", "header"),
    [
        ("assistant<|channel|>analysis", ("assistant", "analysis", "")),
        ("assistant to=functions.f<|channel|>commentary json", ("assistant", "commentary", "f")),
        ("assistant<|channel|>commentary to=functions.a.b <|constrain|>json",
         ("assistant", "commentary", "a.b")),
        ("functions.f to=assistant<|channel|>commentary",
         ("functions.f", "commentary", "assistant")),
        ("", ("", "", "")),
    ],
)  # fmt: skip
def test_headers(text: str, header: tuple[str, str, str]) -> None:
    found = Header.of(text)
    assert (found.role, found.channel, found.function) == header


# ---- prompts and grammars

QUESTION = {"role": "user", "content": "How is it?"}
SCHEMA = {
    "type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"],
    "additionalProperties": False,
}  # fmt: skip
TOOLS = [
    {"type": "function", "function": {"name": name, "description": "", "parameters": SCHEMA}}
    for name in ("weather", "time")
]
WEATHER = '<|channel|>commentary to=functions.weather <|constrain|>json<|message|>{"city": "Ulm"}'
TIME = ' to=functions.time<|channel|>commentary json<|message|>{"city": "Ulm"}'
WRONG = WEATHER.replace("city", "town")


@pytest.fixture(scope="module")
def model() -> ServedModel:
    return harmony_model()


def asking(*messages: object, **more: object) -> Conversation:
    return parse_conversation({"messages": list(messages), "tools": TOOLS, **more})


def plan_of(
    model: ServedModel, asked: Conversation, form: AnswerFormat | None = None
) -> AnswerPlan:
    return chat_plan(model, asked, form, render(model, asked))


def allows(plan: AnswerPlan, text: str) -> bool:
    """Whether the whole text is of the plan's grammar."""
    assert plan.grammar is not None
    constraint = harmony_masks().make(plan.grammar, harmony_tokenizer().eog_ids)
    for token in harmony_tokenizer().encode(text, parse_special=True):
        if not constraint.mask()[token]:
            return False
        constraint.advance(token)
    return bool(constraint.mask()[sorted(harmony_tokenizer().eog_ids)].any())


@pytest.mark.parametrize(
    ("choice", "allowed", "refused"),
    [
        ("auto", [FINAL + "It is.", WEATHER, TIME, SAYS + WEATHER], [WRONG, WEATHER[:-1]]),
        ("required", [WEATHER, TIME, SAYS + TIME], [FINAL + "It is.", WRONG]),
        ({"type": "function", "function": {"name": "time"}}, [TIME], [WEATHER, FINAL + "It"]),
    ],
)
def test_tool_choices_hold_inside_of_channels(
    model: ServedModel, choice: object, allowed: list[str], refused: list[str]
) -> None:
    plan = plan_of(model, asking(QUESTION, tool_choice=choice))
    for before in ("", THINKS, THINKS + THINKS):
        assert all(allows(plan, before + text) for text in allowed)
        assert not any(allows(plan, before + text) for text in refused)
    assert not allows(plan, "It is."), "there is no text without a channel"


def test_a_form_is_that_of_the_final_text(model: ServedModel) -> None:
    form = AnswerFormat(json_part(SCHEMA), "response_format")
    for tools, may_call in ((TOOLS, True), (None, False)):
        plan = plan_of(model, asking(QUESTION, tools=tools), form)
        good = '<|message|>{"city": "Ulm"}'
        for head in ("<|channel|>final", "<|channel|>final <|constrain|>json"):
            assert allows(plan, THINKS + head + good) and allows(plan, head + good)
        assert not allows(plan, THINKS + FINAL + "It is.")
        assert allows(plan, THINKS + WEATHER) is may_call


def test_without_tools_or_form_any_text_will_do(model: ServedModel) -> None:
    plan = plan_of(model, asking(QUESTION, tools=None))
    assert plan.grammar is None and plan.reader(0, StopScanner(StopTable(()))) is not None


def message_from(plan: AnswerPlan, text: str) -> dict[str, object]:
    reader, said = plan.reader(0, StopScanner(StopTable(()))), Message()
    assert reader is not None
    for part in [part for char in text for part in reader.push(char)] + reader.finish():
        said.add(part)
    return message_of(said)


def test_calls_are_read_rendered_and_read_again(model: ServedModel) -> None:
    """With thoughts and words before the call: the template has no place for both, and the model
    goes on with its thoughts."""
    asked = asking(QUESTION)
    message = message_from(plan_of(model, asked), THINKS + SAYS + WEATHER)
    assert (message["content"], message["reasoning_content"]) == ("I look.", "They ask < 3.")
    [call] = message["tool_calls"]  # type: ignore[misc]
    result = {"role": "tool", "tool_call_id": call["id"], "content": "sunny"}
    again = render(model, asking(QUESTION, message, result))
    assert again.endswith(
        THINKS + ' to=functions.weather<|channel|>commentary json<|message|>{"city": "Ulm"}'
        '<|call|><|start|>functions.weather to=assistant<|channel|>commentary<|message|>"sunny"'
        "<|end|><|start|>assistant"
    )
    told = again.partition("How is it?<|end|><|start|>assistant")[2]
    once_more = message_from(plan_of(model, asked), told)
    assert once_more["reasoning_content"] == message["reasoning_content"]
    assert [c["function"] for c in once_more["tool_calls"]] == [call["function"]]  # type: ignore[attr-defined]


def test_calls_at_once_are_rendered_one_after_the_other(model: ServedModel) -> None:
    calls = [
        {"id": name, "type": "function", "function": {"name": name, "arguments": "{}"}}
        for name in ("weather", "time")
    ]
    results = [
        {"role": "tool", "tool_call_id": name, "content": f"of {name}"}
        for name in ("time", "weather")
    ]
    message = {"role": "assistant", "content": None, "tool_calls": calls, "reasoning": "Hm."}
    again = render(model, asking(QUESTION, message, *results))
    order = ["Hm.", "to=functions.weather", "of weather", "to=functions.time", "of time"]
    places = [again.index(text) for text in order]
    assert places == sorted(places) and again.count("Hm.") == 1


def test_thoughts_of_turns_before_are_left_out(model: ServedModel) -> None:
    answer = {"role": "assistant", "content": "Fine.", "reasoning_content": "Hm."}
    prompt = render(model, asking(QUESTION, answer, QUESTION))
    assert "Fine." in prompt and "Hm." not in prompt


@pytest.mark.parametrize("effort", ["low", "high"])
def test_efforts_are_told_in_both_ways(model: ServedModel, effort: str) -> None:
    assert "Reasoning: medium" in render(model, asking(QUESTION))
    for said in ({"reasoning_effort": effort},
                 {"chat_template_kwargs": {"reasoning_effort": effort}}):  # fmt: skip
        assert f"Reasoning: {effort}" in render(model, asking(QUESTION, **said))


@pytest.mark.parametrize(
    ("last", "said", "thoughts", "content"),
    [
        ({"content": "It is"}, " fine.<|return|>", None, " fine."),
        ({"content": "", "reasoning_content": "They"},
         " ask.<|end|><|start|>assistant" + FINAL + "Fine.", " ask.", "Fine."),
    ],
)  # fmt: skip
def test_answers_that_go_on(
    model: ServedModel, last: dict[str, str], said: str, thoughts: str | None, content: str
) -> None:
    asked = asking(QUESTION, {"role": "assistant", **last}, tools=None, continue_final_message=True,
                   add_generation_prompt=False)  # fmt: skip
    message = message_from(plan_of(model, asked), said)
    assert (message.get("reasoning_content"), message["content"]) == (thoughts, content)
    required = replace(asked, tools=asking(QUESTION, tool_choice="required").tools)
    ends = "<|end|><|start|>assistant" + WEATHER
    assert allows(plan_of(model, required), " so" + ends)


def test_thoughts_may_stay_in_the_text(model: ServedModel) -> None:
    asked = replace(asking(QUESTION), reasoning=ReasoningFormat.NONE)
    message = message_from(plan_of(model, asked), THINKS + FINAL + "Fine.")
    marked = "<|channel|>analysis<|message|>They ask < 3.<|end|>Fine."
    assert message["content"] == marked and "reasoning_content" not in message


def test_a_prompt_tells_what_it_has_begun() -> None:
    assert opening_of("…<|end|><|start|>assistant") == Opening()
    begun = opening_of("<|start|>assistant<|channel|>final<|message|>It")
    assert begun == Opening("assistant<|channel|>final", True)
