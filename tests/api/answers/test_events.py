"""Events put together again, and one stream of events for every API."""

from __future__ import annotations

import orjson
import pytest

from api.answers.events import (
    Event,
    Finish,
    Message,
    Start,
    Text,
    Thought,
    ToolArguments,
    ToolCall,
    Usage,
    WholeAnswer,
)
from api.config import ApiConfig
from api.engines.in_process import InProcessEngineClient
from api.errors import ApiError
from api.replies.anthropic import AnthropicWriter
from api.replies.event_stream import ReplyWriter
from api.replies.openai import ChatWriter
from api.replies.responses import ResponsesWriter
from api.requests.openai import parse_chat
from dllama.requests import FinishReason
from tests.api.serving import says, served
from tests.scripted_runner import ScriptedEngine

USAGE = Usage(10, 4, 6, 5, 0, 0, 0.5, 1.0, 7)
EVENTS: list[Event] = [
    Start(0, 10, 0),
    Thought(0, "Hm"),
    Thought(0, "."),
    Text(0, "Let "),
    Text(0, "me."),
    ToolCall(0, 0, "call_a", "f"),
    ToolArguments(0, 0, '{"a"', False),
    ToolArguments(0, 0, ": 1}", True),
    ToolCall(0, 1, "call_b", "g"),
    ToolArguments(0, 1, '{"b', False),
    Finish(0, FinishReason.STOP, USAGE, has_calls=True),
    USAGE,
]


def test_a_message_is_what_its_events_say() -> None:
    [said] = WholeAnswer.of(EVENTS).choices
    assert (said.thoughts, said.text) == ("Hm.", "Let me.")
    assert [(c.id, c.name, c.arguments) for c in said.calls] == [("call_a", "f", '{"a": 1}')]
    assert said.finish == EVENTS[-2]


def test_choices_are_told_apart_by_their_index() -> None:
    mixed: list[Event] = [Text(1, "b"), Text(0, "a"), Text(1, "B"), USAGE]
    answer = WholeAnswer.of(mixed)
    assert [choice.text for choice in answer.choices] == ["a", "bB"]
    assert answer.usage is USAGE


def test_the_events_of_an_answer_end_with_its_usage() -> None:
    with pytest.raises(AssertionError):
        WholeAnswer.of(EVENTS[:-1])


def writers() -> list[ReplyWriter]:
    model = served(InProcessEngineClient(ScriptedEngine(says("a"))))
    asked = parse_chat({"messages": [{"role": "user", "content": "Hi"}]}, "/").generation
    return [
        ChatWriter("x", model, asked, ApiConfig()),
        AnthropicWriter("x", "toy"),
        ResponsesWriter("x", "toy", {}, None),
    ]


@pytest.mark.parametrize("index", range(3))
def test_a_stream_and_a_whole_answer_say_the_same(index: int) -> None:
    streamed = b"".join(map(writers()[index].streamed, EVENTS))
    whole = orjson.dumps(writers()[index].whole(EVENTS)).decode()
    said = Message()
    for event in EVENTS:
        said.add(event)
    for text in ("Hm", "Let ", "me.", "call_a"):
        assert text.encode() in streamed
    for text in ("Hm.", "Let me.", "call_a"):
        assert text in whole
    assert "call_b" not in whole, "a call that broke off is left out"


@pytest.mark.parametrize("index", range(3))
def test_a_stream_that_breaks_off_says_why(index: int) -> None:
    writer = writers()[index]
    writer.streamed(EVENTS[0])
    assert b"node 1 is lost" in writer.failed(ApiError(503, "node 1 is lost"))
