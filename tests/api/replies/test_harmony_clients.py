"""Answers in Harmony by the official clients of three APIs, whole and streamed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from api.engines.in_process import InProcessEngineClient
from tests.api.harmony_model import harmony_engine, harmony_model, harmony_tokenizer
from tests.api.listening import listening_model
from tests.scripted_runner import ScriptedEngine

openai = pytest.importorskip("openai", reason="the official client is a test extra")

HI = [{"role": "user", "content": "Hi"}]
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}}
FUNCTION = {"name": "weather", "description": "Tells the weather.", "parameters": SCHEMA}
TOOLS = [{"type": "function", "function": FUNCTION}]
THINKS = "<|channel|>analysis<|message|>Hm, < 3.<|end|><|start|>assistant"
SAYS = "<|channel|>commentary<|message|>I look.<|end|><|start|>assistant"
CALLS = '<|channel|>commentary to=functions.weather <|constrain|>json<|message|>{"city": "Ulm"}'
CALL = THINKS + SAYS + CALLS + "<|call|>"
FINAL = THINKS + "<|channel|>final<|message|>Fine: Ulm"


@contextmanager
def saying(text: str) -> Iterator[tuple[str, ScriptedEngine]]:
    engine = harmony_engine(text)
    with listening_model(harmony_model(InProcessEngineClient(engine))) as url:
        yield url, engine


@contextmanager
def chatting(text: str) -> Iterator[tuple[openai.OpenAI, ScriptedEngine]]:
    with (
        saying(text) as (url, engine),
        openai.OpenAI(base_url=url + "/v1", api_key="x", max_retries=0) as client,
    ):
        yield client, engine


def test_a_chat_whole_streamed_and_back() -> None:
    with chatting(CALL) as (client, engine):
        asked = {"model": "toy", "tools": TOOLS, "reasoning_effort": "high"}
        [choice] = client.chat.completions.create(messages=HI, **asked).choices
        assert choice.finish_reason == "tool_calls"
        said = choice.message
        assert (said.reasoning_content, said.content) == ("Hm, < 3.", "I look.")
        [call] = said.tool_calls
        assert (call.function.name, call.function.arguments) == ("weather", '{"city": "Ulm"}')
        joined = {"reasoning_content": "", "content": "", "arguments": ""}
        for chunk in client.chat.completions.create(messages=HI, stream=True, **asked):
            for choice in chunk.choices:
                for key in ("reasoning_content", "content"):
                    joined[key] += getattr(choice.delta, key, None) or ""
                for part in choice.delta.tool_calls or []:
                    joined["arguments"] += part.function.arguments or ""
        assert list(joined.values()) == ["Hm, < 3.", "I look.", '{"city": "Ulm"}']
        result = {"role": "tool", "tool_call_id": call.id, "content": "sunny"}
        client.chat.completions.create(messages=[*HI, said, result], **asked)
        prompt = harmony_tokenizer().decode(engine.submitted[-1].tokens)
        assert "Reasoning: high" in prompt and "Hm, < 3.<|end|>" in prompt
        assert 'functions.weather to=assistant<|channel|>commentary<|message|>"sunny"' in prompt


def test_forced_calls_and_forms_leave_room_for_thoughts() -> None:
    """The engine draws nothing that the grammar forbids."""
    with chatting(CALL) as (client, _):
        for choice in ("required", {"type": "function", "function": {"name": "weather"}}):
            [told] = client.chat.completions.create(
                model="toy", messages=HI, tools=TOOLS, tool_choice=choice
            ).choices
            assert told.finish_reason == "tool_calls" and told.message.reasoning_content
    formed = THINKS + '<|channel|>final <|constrain|>json<|message|>{"city": "Ulm"}<|return|>'
    with chatting(formed) as (client, _):
        form = {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA}}
        [told] = client.chat.completions.create(
            model="toy", messages=HI, response_format=form
        ).choices
        assert json.loads(told.message.content) == {"city": "Ulm"}
        assert (told.message.reasoning_content, told.finish_reason) == ("Hm, < 3.", "stop")


def test_a_form_is_complete_where_thoughts_take_all_tokens() -> None:
    with chatting("<|channel|>analysis<|message|>" + "Hm, well. " * 40) as (client, _):
        schema = {**SCHEMA, "required": ["city"]}
        form = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
        [told] = client.chat.completions.create(
            model="toy", messages=HI, response_format=form, max_tokens=90
        ).choices
        assert told.message.reasoning_content.startswith("Hm, well. Hm, well.")
        assert set(json.loads(told.message.content)) == {"city"}


@pytest.mark.parametrize("end", ["<|return|>", "<|end|>", "<|end|><|start|>user<|message|>No"])
def test_an_answer_ends_with_its_final_message(end: str) -> None:
    with chatting(FINAL + end) as (client, _):
        for stop in (None, ["never"]):
            answer = client.chat.completions.create(
                model="toy", messages=HI, max_tokens=200, stop=stop
            )
            [choice] = answer.choices
            assert (choice.message.content, choice.finish_reason) == ("Fine: Ulm", "stop")
        n = len(harmony_tokenizer().encode(FINAL, parse_special=True))
        assert answer.usage.completion_tokens == n + (end != "<|return|>")  # that ends it unsaid


def test_stop_strings_are_those_of_the_final_text() -> None:
    with chatting(FINAL + "<|return|>") as (client, _):
        answer = client.chat.completions.create(model="toy", messages=HI, stop=["3", ": "])
        [choice] = answer.choices
        assert (choice.message.reasoning_content, choice.message.content) == ("Hm, < 3.", "Fine")


def test_responses_whole_and_streamed() -> None:
    tool = {"type": "function", **FUNCTION}
    with chatting(CALL) as (client, engine):
        asked = {"model": "toy", "input": "Hi", "tools": [tool], "reasoning": {"effort": "low"}}
        answer = client.responses.create(**asked)
        kinds = [item.type for item in answer.output]
        assert kinds == ["reasoning", "message", "function_call"]
        assert answer.output_text == "I look." and answer.output[2].name == "weather"
        assert json.loads(answer.output[2].arguments) == {"city": "Ulm"}
        assert "Reasoning: low" in harmony_tokenizer().decode(engine.submitted[-1].tokens)
        events = list(client.responses.create(stream=True, **asked))
        told = "".join(
            event.delta for event in events
            if event.type == "response.function_call_arguments.delta"
        )  # fmt: skip
        assert told == '{"city": "Ulm"}' and events[-1].type == "response.completed"


def test_anthropic_whole_and_streamed() -> None:
    anthropic = pytest.importorskip("anthropic", reason="the official client is a test extra")
    tools = [{"name": "weather", "description": "", "input_schema": SCHEMA}]
    with (
        saying(CALL) as (url, _),
        anthropic.Anthropic(base_url=url, api_key="x", max_retries=0) as client,
    ):
        asked = {"model": "toy", "max_tokens": 400, "messages": HI, "tools": tools}
        whole = client.messages.create(**asked)
        with client.messages.stream(**asked) as stream:
            streamed = stream.get_final_message()
        for answer in (whole, streamed):
            thought, text, call = answer.content
            assert (thought.thinking, text.text) == ("Hm, < 3.", "I look.")
            assert (call.name, call.input) == ("weather", {"city": "Ulm"})
            assert answer.stop_reason == "tool_use"
