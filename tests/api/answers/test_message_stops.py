"""Stop strings count for the content of a message: not for thoughts, and not for tool calls."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.answers.events import Citation, Message, Part, Text, ToolCall
from api.answers.plan import AnswerPlan
from api.answers.reasoning import TAGS
from api.answers.stop import StopScanner, StopTable
from api.engines.in_process import InProcessEngineClient
from api.tools.dialects import COMMAND, HERMES
from api.tools.tool_request import Tool
from dllama.chat.chat_template import ChatTemplate
from tests.api.serving import Reply, masks, run, says, served, serving, tokenizer
from tests.scripted_runner import ScriptedEngine

THOUGHTS = "<think>\nLet me STOP and see.\n</think>\n\n"
CALL = '<tool_call>\n{"name": "f", "arguments": {"a": "STOP\\n"}}\n</tool_call>'
TEMPLATE = "{% for m in messages %}{{ m.content }}{% endfor %}{{ tools }}<tool_call> <think>:"
TOOL = {"name": "f", "parameters": {"type": "object", "properties": {"a": {"type": "string"}}}}
TOOLS = [{"type": "function", "function": TOOL}]
HI = [{"role": "user", "content": "Hi"}]

CASES = [  # what the model says, stop strings; thoughts, content, arguments, the stop string
    (THOUGHTS + "Hello STOP you", ["STOP"], "Let me STOP and see.", "Hello ", [], "STOP"),
    (THOUGHTS + "Hello", ["STOP"], "Let me STOP and see.", "Hello", [], None),
    (THOUGHTS + "a\n\nb", ["\n\n", "</think>"], "Let me STOP and see.", "a", [], "\n\n"),
    ("Hello STOP", ["STOP", "Hell"], "", "", [], "Hell"),
    ("I look. " + CALL, ["STOP", "\n", "}"], "", "I look.", ['{"a": "STOP\\n"}'], None),
    ("I ST" + CALL, ["STOP"], "", "I ST", ['{"a": "STOP\\n"}'], None),
    ("Hello ST", ["STOP"], "", "Hello ST", [], None),
    ("I STOP " + CALL, ["STOP"], "", "I ", [], "STOP"),
    (THOUGHTS + CALL, ["STOP", "<"], "Let me STOP and see.", "", ['{"a": "STOP\\n"}'], None),
    ("a\n\n" + CALL, ["\n\n"], "", "a", ['{"a": "STOP\\n"}'], None),
    ("a\n\n", ["\n\n"], "", "a", [], "\n\n"),
]


TOOL = Tool("f", {}, {}, "tools")


def parts_of(pieces: list[str], scanner: StopScanner) -> list[Part]:
    """The parts of a text that comes in these pieces."""
    plan = AnswerPlan(is_message=True, tags=TAGS[0], tools=(TOOL,), dialect=HERMES)
    reader = plan.reader(0, scanner)
    assert reader is not None
    return [part for piece in pieces for part in reader.push(piece)] + reader.finish()


def read(pieces: list[str], stops: list[str]) -> tuple[str, str, list[str], str | None]:
    """Thoughts, content, arguments of the calls, and the stop string."""
    scanner, said = StopScanner(StopTable(stops)), Message()
    for part in parts_of(pieces, scanner):
        said.add(part)
    return said.thoughts, said.text, [call.arguments for call in said.calls], scanner.found


@pytest.mark.parametrize(("text", "stops", "thoughts", "content", "calls", "found"), CASES)
def test_stops_of_a_message(
    text: str, stops: list[str], thoughts: str, content: str, calls: list[str], found: str | None
) -> None:
    assert read([text], stops) == read(list(text), stops) == (thoughts, content, calls, found)


def test_parts_come_in_order() -> None:
    """Text that might have become a stop string is told before the call that follows it."""
    parts = parts_of(["I ST", CALL], StopScanner(StopTable(["STOP"])))
    assert [type(part) for part in parts[:3]] == [Text, Text, ToolCall]


@given(
    st.lists(st.sampled_from(["<think>", "</think>", "STOP", "ST", "OP", " ", "\n", "a", CALL])),
    st.sets(st.sampled_from(["STOP", "ST", "\n\n", "a", "<think>"]), max_size=3),
    st.data(),
)
def test_cuts_make_no_difference(words: list[str], stops: set[str], data: st.DataObject) -> None:
    text = "".join(words)
    cuts = sorted(data.draw(st.sets(st.integers(0, len(text)))))
    pieces = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    found = read(pieces, sorted(stops))
    assert found == read(list(text), sorted(stops))
    thoughts, content, _, stop = found
    assert not any(word in content for word in stops)
    assert (stop is None) or stop in text
    if not stops:
        assert thoughts in text


def replies(text: str, *posts: tuple[str, dict]) -> list[Reply]:
    """The replies of a model that thinks and calls tools, and says this."""
    engine = ScriptedEngine(says(text), max_len=2048, constraints=masks())
    model = replace(
        served(InProcessEngineClient(engine)),
        chat_template=ChatTemplate(TEMPLATE),
        tool_dialect=HERMES,
        think_tags=TAGS[0],
        max_seq_len=2048,
    )
    found: list[Reply] = []

    async def body() -> None:
        async with serving(model) as server:
            for path, sent in posts:
                found.append(await server.post(path, {"messages": HI, **sent}))

    run(body)
    return found


def test_a_stop_string_in_thoughts_ends_nothing() -> None:
    chat, anthropic = "/v1/chat/completions", "/v1/messages"
    [told, from_anthropic] = replies(
        THOUGHTS + "Hello STOP you",
        (chat, {"stop": ["STOP"]}),
        (anthropic, {"stop_sequences": ["STOP"], "max_tokens": 100}),
    )
    [choice] = told.json["choices"]
    assert choice["message"]["reasoning_content"] == "Let me STOP and see."
    assert (choice["message"]["content"], choice["finish_reason"]) == ("Hello ", "stop")
    thought, text = from_anthropic.json["content"]
    assert (thought["thinking"], text["text"]) == ("Let me STOP and see.", "Hello ")
    assert from_anthropic.json["stop_reason"] == "stop_sequence"
    assert from_anthropic.json["stop_sequence"] == "STOP"
    n_tokens = len(tokenizer().encode(THOUGHTS + "Hello STOP"))
    assert told.json["usage"]["completion_tokens"] == n_tokens, "it ends as soon as it is complete"


def test_thoughts_that_are_content_are_searched() -> None:
    [told] = replies(
        THOUGHTS + "Hello", ("/v1/chat/completions", {"stop": "STOP", "reasoning_format": "none"})
    )
    [choice] = told.json["choices"]
    assert choice["message"]["content"] == "<think>\nLet me "


def test_streams_say_the_same() -> None:
    [told] = replies(
        THOUGHTS + "Hello STOP you", ("/v1/chat/completions", {"stop": ["STOP"], "stream": True})
    )
    deltas = [event["choices"][0]["delta"] for event in told.events if event["choices"]]
    joined = ["".join(d.get(key) or "" for d in deltas) for key in ("reasoning_content", "content")]
    assert joined == ["Let me STOP and see.", "Hello "]


def test_a_stop_string_in_a_call_leaves_it_whole() -> None:
    [told] = replies(
        "I look. " + CALL, ("/v1/chat/completions", {"stop": ["STOP", "}"], "tools": TOOLS})
    )
    [choice] = told.json["choices"]
    assert choice["finish_reason"] == "tool_calls"
    [call] = choice["message"]["tool_calls"]
    assert call["function"]["arguments"] == '{"a": "STOP\\n"}'
    assert choice["message"]["content"] == "I look."


def test_probabilities_end_before_the_stop_string() -> None:
    [told] = replies(
        THOUGHTS + "Hello STOP you",
        ("/v1/chat/completions", {"stop": ["STOP"], "logprobs": True}),
    )
    [choice] = told.json["choices"]
    tokens = [entry["token"] for entry in choice["logprobs"]["content"]]
    assert "".join(tokens) == THOUGHTS + "Hello "


@pytest.mark.parametrize(
    ("text", "stops", "content", "spans"),
    [
        ("x<co>abc</co: 0:[1]>d", ["bcd"], "xa", []),
        ("x<co>abc</co: 0:[1]>e", ["bcd"], "xabce", ["abc"]),
        ("<co>ab</co: 0:[1]><co>d</co: 0:[2]>STOP<co>e</co: 0:[1]>", ["STOP"], "abd", ["ab", "d"]),
        ("<co>abc</co: 0:[1]>", ["bcd"], "abc", ["abc"]),
    ],
)  # fmt: skip
def test_citations_are_of_text_that_is_told(
    text: str, stops: list[str], content: str, spans: list[str]
) -> None:
    for pieces in ([text], list(text)):
        plan = AnswerPlan(is_message=True, dialect=COMMAND)
        reader = plan.reader(0, StopScanner(StopTable(stops)))
        assert reader is not None
        told = ""
        found: list[str] = []
        for part in [part for piece in pieces for part in reader.push(piece)] + reader.finish():
            if isinstance(part, Citation):
                assert told[part.begin : part.end] == part.text, "it comes after its text"
                found.append(part.text)
            else:
                told += part.text
        assert (told, found) == (content, spans)
