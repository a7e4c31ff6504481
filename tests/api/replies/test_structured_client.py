"""Tool calls, thoughts and forms through the official client, whole and streamed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest

from api.answers.reasoning import TAGS
from api.engines.in_process import InProcessEngineClient
from api.tools.dialects import HERMES
from dllama.chat.chat_template import ChatTemplate
from dllama.requests import Submit
from tests.api.listening import listening_model
from tests.api.serving import ClientClass, StepwiseClient, masks, says, served
from tests.scripted_runner import ScriptedEngine

openai = pytest.importorskip("openai", reason="the official client is a test extra")

HI = [{"role": "user", "content": "Hi"}]
TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "Tells the weather.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}
CALL = '<tool_call>\n{"name": "weather", "arguments": {"city": "Zürich"}}\n</tool_call>'
THOUGHTS = "<think>\nHm, < 3.\n</think>\n\n"
TEMPLATE = (
    "{% for m in messages %}{{ m.role }}: {{ m.content }}{{ m.tool_calls }}\n{% endfor %}"
    "{{ tools }}<tool_call> <think>.\nassistant:"
)


@contextmanager
def client_of(
    text: str, end: str = "", *, client: ClientClass = InProcessEngineClient
) -> Iterator[tuple[object, ScriptedEngine]]:
    engine = ScriptedEngine(says(text), max_len=2048, constraints=masks())
    model = replace(
        served(client(engine)),
        chat_template=ChatTemplate(TEMPLATE + end),
        tool_dialect=HERMES,
        think_tags=TAGS[0],
        max_seq_len=2048,
    )
    with (
        listening_model(model) as url,
        openai.OpenAI(base_url=url + "/v1", api_key="x", max_retries=0) as official,
    ):
        yield official, engine


def grammar_of(submit: Submit) -> dict:
    assert submit.grammar is not None
    return json.loads(submit.grammar)


def test_a_tool_call_and_its_result() -> None:
    with client_of(THOUGHTS + "Let me look.\n" + CALL) as (client, engine):
        answer = client.chat.completions.create(model="toy", messages=HI, tools=[TOOL])
        [choice] = answer.choices
        assert choice.finish_reason == "tool_calls"
        assert choice.message.content == "Let me look."
        assert choice.message.reasoning_content == "Hm, < 3."
        [call] = choice.message.tool_calls
        assert call.type == "function" and call.function.name == "weather"
        assert json.loads(call.function.arguments) == {"city": "Zürich"}
        more = [choice.message, {"role": "tool", "tool_call_id": call.id, "content": "sunny"}]
        client.chat.completions.create(model="toy", messages=[*HI, *more], tools=[TOOL])
        assert grammar_of(engine.submitted[0]) == grammar_of(engine.submitted[1])


def test_streamed_tool_calls() -> None:
    two = CALL + "\n" + CALL
    with client_of(THOUGHTS + two, client=StepwiseClient) as (client, _):
        stream = client.chat.completions.create(model="toy", messages=HI, tools=[TOOL], stream=True)
        chunks = list(stream)
    deltas = [chunk.choices[0].delta for chunk in chunks if chunk.choices]
    thoughts = "".join(getattr(delta, "reasoning_content", None) or "" for delta in deltas)
    assert thoughts == "Hm, < 3."
    assert "".join(delta.content or "" for delta in deltas) == ""
    calls = [call for delta in deltas for call in delta.tool_calls or []]
    opened = [call for call in calls if call.id is not None]
    assert [call.index for call in opened] == [0, 1]
    assert [call.function.name for call in opened] == ["weather", "weather"]
    assert len({call.id for call in opened}) == 2
    for index in (0, 1):
        pieces = [c.function.arguments for c in calls if c.index == index]
        assert len(pieces) > 3
        assert json.loads("".join(pieces)) == {"city": "Zürich"}
    assert chunks[-1].choices[0].finish_reason == "tool_calls"


def test_the_clients_own_stream_helper_puts_calls_together() -> None:
    with (
        client_of(CALL) as (client, _),
        client.chat.completions.stream(model="toy", messages=HI, tools=[TOOL]) as stream,
    ):
        kinds = {event.type for event in stream}
        final = stream.get_final_completion()
    assert "tool_calls.function.arguments.done" in kinds
    [call] = final.choices[0].message.tool_calls
    assert json.loads(call.function.arguments) == {"city": "Zürich"}


def test_a_call_that_breaks_off_is_left_out() -> None:
    with client_of(CALL) as (client, _):
        answer = client.chat.completions.create(
            model="toy", messages=HI, tools=[TOOL], max_tokens=20
        )
    assert answer.choices[0].finish_reason == "length"
    assert answer.choices[0].message.tool_calls is None


def test_without_tools_nothing_is_a_call() -> None:
    for more in ({}, {"tools": [TOOL], "tool_choice": "none"}):
        with client_of(CALL) as (client, engine):
            answer = client.chat.completions.create(model="toy", messages=HI, **more)
        assert answer.choices[0].message.content == CALL
        assert answer.choices[0].finish_reason == "stop"
        assert engine.submitted[0].grammar is None


@pytest.mark.parametrize("form", ["none", "auto", "deepseek"])
def test_reasoning_formats(form: str) -> None:
    with client_of(THOUGHTS + "Yes.") as (client, _):
        answer = client.chat.completions.create(
            model="toy", messages=HI, extra_body={"reasoning_format": form}
        )
    message = answer.choices[0].message
    if form == "none":
        assert message.content == THOUGHTS + "Yes."
    else:
        assert (message.content, message.reasoning_content) == ("Yes.", "Hm, < 3.")


def test_thoughts_that_the_prompt_opens_may_be_forbidden() -> None:
    with client_of("Yes.", "<think>\n") as (client, _):
        opened = client.chat.completions.create(model="toy", messages=HI)
        assert opened.choices[0].message.reasoning_content == "Yes."
        for more in ({"enable_thinking": False}, {"reasoning_effort": "none"}):
            closed = client.chat.completions.create(model="toy", messages=HI, extra_body=more)
            assert closed.choices[0].message.content == "Yes."


@pytest.mark.parametrize(
    ("more", "kind"),
    [
        ({"response_format": {"type": "json_object"}}, "json_schema"),
        (
            {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "a", "strict": True, "schema": {"type": "integer"}},
                }
            },
            "json_schema",
        ),
        ({"extra_body": {"json_schema": {"type": "integer"}}}, "json_schema"),
        ({"extra_body": {"grammar": 'root ::= "a"+'}}, "lark_grammar"),
        ({"extra_body": {"grammar": 'start: "a"+'}}, "lark_grammar"),
        ({"extra_body": {"guided_regex": "a+"}}, "lark_grammar"),
    ],
)
def test_forms_reach_the_engine(more: dict, kind: str) -> None:
    with client_of("x") as (client, engine):
        client.chat.completions.create(model="toy", messages=HI, n=2, **more)
        client.completions.create(
            model="toy", prompt="x", **more if "extra_body" in more else {"extra_body": more}
        )
    assert len({submit.grammar for submit in engine.submitted}) == 2  # one thinks first
    assert all(kind in grammar_of(submit)["grammars"][-1] for submit in engine.submitted)


def test_a_form_that_is_none_is_refused_before_anything_is_queued() -> None:
    with client_of("x") as (client, engine):
        with pytest.raises(openai.BadRequestError) as refused:
            client.chat.completions.create(
                model="toy",
                messages=HI,
                response_format={
                    "type": "json_schema",
                    "json_schema": {"name": "a", "schema": {"type": "strng"}},
                },
            )
        assert refused.value.param == "response_format"
        assert "strng" in refused.value.message
        assert not engine.submitted
