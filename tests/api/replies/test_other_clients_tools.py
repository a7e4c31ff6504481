"""Tool calls and thoughts in the words of Anthropic's API and of OpenAI's Responses, whole and
streamed, by the official clients."""

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
from tests.api.listening import listening_model
from tests.api.serving import masks, says, served, tokenizer
from tests.scripted_runner import ScriptedEngine

HI = [{"role": "user", "content": "Hi"}]
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}}
NAMED = {"name": "weather", "description": "Tells the weather."}
CALL = '<tool_call>\n{"name": "weather", "arguments": {"city": "Zürich"}}\n</tool_call>'
SAID = "<think>\nHm, < 3.\n</think>\n\nLet me look.\n" + CALL + "\n" + CALL
TEMPLATE = (
    "{% for m in messages %}{{ m.role }}: {{ m.content }}{{ m.tool_calls }}\n{% endfor %}"
    "{{ tools }}<tool_call> <think>.\nassistant:"
)
ARGUMENTS = {"city": "Zürich"}


@contextmanager
def serving_tools() -> Iterator[tuple[str, ScriptedEngine]]:
    engine = ScriptedEngine(says(SAID), max_len=2048, constraints=masks())
    model = replace(
        served(InProcessEngineClient(engine)),
        chat_template=ChatTemplate(TEMPLATE),
        tool_dialect=HERMES,
        think_tags=TAGS[0],
        max_seq_len=2048,
    )
    with listening_model(model) as url:
        yield url, engine


def prompt_of(engine: ScriptedEngine) -> str:
    return tokenizer().decode(engine.submitted[-1].tokens)


def test_anthropic_whole_and_back() -> None:
    anthropic = pytest.importorskip("anthropic", reason="the official client is a test extra")
    tools = [{**NAMED, "input_schema": SCHEMA}]
    with (
        serving_tools() as (url, engine),
        anthropic.Anthropic(base_url=url, api_key="x", max_retries=0) as client,
    ):
        asked = {"model": "toy", "max_tokens": 900, "tools": tools}
        answer = client.messages.create(messages=HI, **asked)
        assert answer.stop_reason == "tool_use"
        thought, text, *calls = answer.content
        assert (thought.type, thought.thinking) == ("thinking", "Hm, < 3.")
        assert (text.type, text.text) == ("text", "Let me look.")
        assert [call.name for call in calls] == ["weather", "weather"]
        assert all(call.input == ARGUMENTS for call in calls)
        assert len({call.id for call in calls}) == 2
        results = [
            {"type": "tool_result", "tool_use_id": call.id, "content": f"sunny {i}"}
            for i, call in enumerate(calls)
        ]
        more = [
            {"role": "assistant", "content": [block.model_dump() for block in answer.content]},
            {"role": "user", "content": [*results, {"type": "text", "text": "And now?"}]},
        ]
        client.messages.create(messages=[*HI, *more], **asked)
        said = prompt_of(engine)
        assert said.index("tool: sunny 0") < said.index("tool: sunny 1") < said.index("And now?")
        for choice in ({"type": "any"}, {"type": "tool", "name": "weather"}, {"type": "none"}):
            client.messages.create(messages=HI, tool_choice=choice, **asked)


def test_anthropic_streamed() -> None:
    anthropic = pytest.importorskip("anthropic", reason="the official client is a test extra")
    tools = [{**NAMED, "input_schema": SCHEMA}]
    with (
        serving_tools() as (url, _),
        anthropic.Anthropic(base_url=url, api_key="x", max_retries=0) as client,
        client.messages.stream(model="toy", max_tokens=900, messages=HI, tools=tools) as stream,
    ):
        started = [e.content_block.type for e in stream if e.type == "content_block_start"]
        final = stream.get_final_message()
    assert started == ["thinking", "text", "tool_use", "tool_use"]
    assert [block.type for block in final.content] == started
    assert final.content[0].thinking == "Hm, < 3." and final.content[1].text == "Let me look."
    assert [block.input for block in final.content[2:]] == [ARGUMENTS, ARGUMENTS]
    assert final.stop_reason == "tool_use" and final.usage.output_tokens > 0


def test_responses_whole_and_back() -> None:
    openai = pytest.importorskip("openai", reason="the official client is a test extra")
    tools = [{"type": "function", **NAMED, "parameters": SCHEMA}]
    with (
        serving_tools() as (url, engine),
        openai.OpenAI(base_url=url + "/v1", api_key="x", max_retries=0) as client,
    ):
        answer = client.responses.create(model="toy", input="Hi", tools=tools)
        assert [item.type for item in answer.output] == [
            "reasoning", "message", "function_call", "function_call",
        ]  # fmt: skip
        assert answer.output[0].content[0].text == "Hm, < 3."
        assert answer.output_text == "Let me look."
        calls = answer.output[2:]
        assert all(json.loads(call.arguments) == ARGUMENTS for call in calls)
        results = [
            {"type": "function_call_output", "call_id": call.call_id, "output": "sunny"}
            for call in calls
        ]
        client.responses.create(
            model="toy", input=results, tools=tools, previous_response_id=answer.id
        )
        said = prompt_of(engine)
        assert "user: Hi" in said and said.count("tool: sunny") == 2 and "Zürich" in said
        client.responses.create(  # the items themselves, as stateless clients send them
            model="toy",
            input=[*HI, *(item.model_dump() for item in answer.output), *results],
            tools=tools,
            tool_choice={"type": "function", "name": "weather"},
        )
        assert prompt_of(engine).count("tool: sunny") == 2


def test_responses_streamed() -> None:
    openai = pytest.importorskip("openai", reason="the official client is a test extra")
    tools = [{"type": "function", **NAMED, "parameters": SCHEMA}]
    with (
        serving_tools() as (url, _),
        openai.OpenAI(base_url=url + "/v1", api_key="x", max_retries=0) as client,
    ):
        events = list(client.responses.create(model="toy", input="Hi", tools=tools, stream=True))
    assert [event.sequence_number for event in events] == list(range(len(events)))
    kinds = [event.type.removeprefix("response.") for event in events]
    once = [kind for i, kind in enumerate(kinds) if kind != kinds[i - 1]]
    assert once == [
        "created", "in_progress",
        "output_item.added", "content_part.added", "reasoning_text.delta", "reasoning_text.done",
        "content_part.done", "output_item.done",
        "output_item.added", "content_part.added", "output_text.delta", "output_text.done",
        "content_part.done", "output_item.done",
        *2 * ["output_item.added", "function_call_arguments.delta", "function_call_arguments.done",
              "output_item.done"],
        "completed",
    ]  # fmt: skip
    final = events[-1].response
    calls = [item for item in final.output if item.type == "function_call"]
    for index, call in enumerate(calls, start=2):
        deltas = [
            e.delta for e in events
            if e.type == "response.function_call_arguments.delta" and e.output_index == index
        ]  # fmt: skip
        assert json.loads("".join(deltas)) == json.loads(call.arguments) == ARGUMENTS
        assert call.name == "weather" and call.status == "completed"
