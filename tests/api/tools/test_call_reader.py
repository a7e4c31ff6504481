"""Calls read out of text, whatever pieces it comes in."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.answers.events import Finish, Message, Text, ToolArguments, ToolCall, Usage
from api.answers.message_reader import MessageReader, TaggedReader
from api.answers.stop import StopScanner, StopTable
from api.replies.openai import message_of, reason_of
from api.tools.call_reader import CallReader
from api.tools.dialects import (
    COMMAND,
    DEEPSEEK,
    DEEPSEEK_R1,
    GENERIC,
    HERMES,
    KIMI,
    LLAMA3,
    LLAMA4,
    MISTRAL,
    ToolDialect,
)
from dllama.requests import FinishReason

NAMES = ("f", "get_it")
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=6,
)
arguments = st.dictionaries(st.text(max_size=5), values, max_size=3)


def read(dialect: ToolDialect, pieces: list[str]) -> tuple[str, list[tuple[str, str, bool]]]:
    """The text, and name, arguments and completeness of each call."""
    reader = CallReader(dialect, NAMES)
    parts = [part for piece in pieces for part in reader.push(piece)] + reader.flush()
    text = "".join(part.text for part in parts if isinstance(part, Text))
    calls: list[list] = []
    for part in parts:
        if isinstance(part, ToolCall):
            assert part.call == len(calls)
            calls.append([part.name, "", False])
        elif isinstance(part, ToolArguments):
            assert part.call == len(calls) - 1
            calls[-1][1] += part.text
            calls[-1][2] = part.is_end
    assert reader.n_complete == sum(call[2] for call in calls)
    return text, [tuple(call) for call in calls]  # type: ignore[misc]


@given(
    dialect=st.sampled_from(
        [HERMES, MISTRAL, LLAMA3, LLAMA4, GENERIC, DEEPSEEK_R1, DEEPSEEK, KIMI, COMMAND]
    ),
    said=st.sampled_from(["", "Let me see.\n", 'a { "name" < [', "<tool"]),
    wanted=st.lists(st.tuples(st.sampled_from(NAMES), arguments), min_size=1, max_size=3),
    data=st.data(),
)
def test_what_is_written_is_read(
    dialect: ToolDialect, said: str, wanted: list, data: st.DataObject
) -> None:
    written = [
        f"{dialect.before}{dialect.head(name, i)}{json.dumps(args)}{dialect.tail}{dialect.after}"
        for i, (name, args) in enumerate(wanted)
    ]
    text = said + dialect.opening + dialect.between.join(written) + dialect.closing
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=8)))
    pieces = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    content, calls = read(dialect, pieces)
    assert content == said.rstrip()
    assert [(name, json.loads(args), done) for name, args, done in calls] == [
        (name, args, True) for name, args in wanted
    ]


@pytest.mark.parametrize(
    "text", ["", "<tool_call", "It is { } <tool", '{"name": "other", "parameters": {}}', "a \n"]
)
@pytest.mark.parametrize("dialect", [HERMES, MISTRAL, LLAMA3, LLAMA4, DEEPSEEK, KIMI, COMMAND])
def test_text_without_calls_stays_as_it_is(dialect: ToolDialect, text: str) -> None:
    assert read(dialect, list(text)) == (text, [])


def test_llama_calls_need_no_mark_at_the_beginning() -> None:
    text = '{"name": "f", "parameters": {"a": "}"}}'
    assert read(LLAMA3, list(text)) == ("", [("f", '{"a": "}"}', True)])
    assert read(LLAMA3, ["Like " + text]) == ("Like " + text, [])


def test_a_call_of_kimi_has_the_id_that_it_is_written_with() -> None:
    text = KIMI.opening + KIMI.head("f", 12) + "{}" + KIMI.after
    reader = CallReader(KIMI, NAMES)
    parts = [part for char in text for part in reader.push(char)]
    assert [part.id for part in parts if isinstance(part, ToolCall)] == ["functions.f:12"]


def test_a_call_that_breaks_off_is_not_complete() -> None:
    text = HERMES.before + HERMES.head("f") + '{"a": "x'
    assert read(HERMES, list(text)) == ("", [("f", '{"a": "x', False)])
    assert read(HERMES, ["well <tool_call>\n{"]) == ("well<tool_call>\n{", [])


def test_a_message_tells_whole_calls_and_why_it_ended() -> None:
    """Also where a second call was cut: an answer of max_tokens says so, whatever it has."""
    call = HERMES.before + HERMES.head("f") + '{"a": 1}}' + HERMES.after
    stops = StopScanner(StopTable(()))
    parts = TaggedReader(0, None, CallReader(HERMES, NAMES))
    reader, said = MessageReader(0, parts, stops), Message()
    text = HERMES.opening + call + HERMES.between + call[:-20]
    for part in [part for char in text for part in reader.push(char)] + reader.finish():
        said.add(part)
    calls = message_of(said)["tool_calls"]
    assert isinstance(calls, list)
    assert [made["function"] for made in calls] == [{"name": "f", "arguments": '{"a": 1}'}]
    usage = Usage(0, 0, 0, 0, 0, 0, 0.0, 0.0, 0)
    for reason, told in ((FinishReason.LENGTH, "length"), (FinishReason.STOP, "tool_calls")):
        assert reason_of(Finish(0, reason, usage, has_calls=reader.has_calls)) == told
