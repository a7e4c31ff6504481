"""Calls whose arguments stand between tags: held to their grammar, read whatever pieces they come
in, and rendered again by a template in the manner of GLM-4.5's."""

from __future__ import annotations

import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.answers.events import Message
from api.answers.plan import chat_plan
from api.answers.reasoning import tags_of
from api.requests.openai import parse_conversation
from api.requests.prompts.conversation import Conversation
from api.requests.prompts.prompting import render
from api.served_model import ServedModel
from api.tools.dialects import GLM, HERMES, dialect_of
from api.tools.tagged_reader import TaggedCallReader
from dllama.chat.chat_template import ChatTemplate
from tests.api.tools.test_round_trips import allows, read, tokenizer

TEMPLATE = """\
[gMASK]<sop>
{%- if tools %}<|system|>
{% for tool in tools %}{{ tool | tojson }}
{% endfor %}<tool_call>{name}
<arg_key>{key}</arg_key>
<arg_value>{value}</arg_value>
</tool_call>{% endif %}
{%- for m in messages %}<|{{ m.role }}|>
{{ m.content or '' }}
{%- for tc in m.tool_calls or [] %}
{%- set call = tc.function %}
<tool_call>{{ call.name }}
{% for k, v in call.arguments.items() -%}
<arg_key>{{ k }}</arg_key>
<arg_value>{{ v if v is string else v | tojson }}</arg_value>
{% endfor %}</tool_call>
{%- endfor %}
{%- endfor %}
{%- if add_generation_prompt %}<|assistant|>{% endif %}"""
PROPERTIES: dict[str, object] = {
    "city": {"type": "string"},
    "unit": {"enum": ["C", "F"]},
    "days": {"type": "integer"},
    "where": {"$ref": "#/$defs/place"},
    "hours": {"type": "array", "items": {"$ref": "#/$defs/hour"}},
    "note": {"type": ["string", "null"]},
}
SCHEMA: dict[str, object] = {
    "type": "object", "properties": PROPERTIES, "required": ["city", "days"],
    "$defs": {"hour": {"type": "integer"}, "place": {"type": "object", "properties": {
        "lat": {"type": "number"}}}},
}  # fmt: skip
FUNCTIONS = {"weather": SCHEMA, "now": {"type": "object", "properties": {}}, "any": {}}
QUESTION = {"role": "user", "content": "How is it in Zürich?"}
CITY = 'Zürich {"}\n<b>'
CALL = (
    f"<tool_call>weather\n<arg_key>city</arg_key>\n<arg_value>{CITY}</arg_value>\n"
    "<arg_key>days</arg_key>\n<arg_value>3</arg_value>\n"
    "<arg_key>hours</arg_key>\n<arg_value>[7, 8]</arg_value>\n</tool_call>"
)
ARGUMENTS = {"city": CITY, "days": 3, "hours": [7, 8]}
NOW = "<tool_call>now</tool_call>"


def served(source: str = TEMPLATE) -> ServedModel:
    template = ChatTemplate(source, bos_token="<s>", eos_token="</s>")
    return ServedModel(
        "glm", tokenizer(), template, None, 4096, 0, tuple(tokenizer().eog_ids),  # type: ignore[arg-type]
        tool_dialect=dialect_of(template.sources), think_tags=tags_of(template.source),
    )  # fmt: skip


def asked(*messages: object, **more: object) -> Conversation:
    tools = [
        {"type": "function", "function": {"name": name, "parameters": schema}}
        for name, schema in FUNCTIONS.items()
    ]
    return parse_conversation({"messages": [QUESTION, *messages], "tools": tools, **more})


def grammar(**more: object) -> str | None:
    return chat_plan(served(), asked(**more), None, "closed").grammar


def test_the_template_tells_the_dialect() -> None:
    assert served().tool_dialect is GLM
    assert dialect_of(("{{ tools }} <tool_call>",)) is HERMES


ALLOWED = [
    CALL,
    f"{CALL}\n{NOW}",
    NOW,
    CALL.replace("\n<arg", "<arg").replace(">\n</tool", "></tool"),  # as GLM-4.7 writes it
    CALL.replace(
        "<arg_key>days", "<arg_key>unit</arg_key>\n<arg_value>F</arg_value>\n<arg_key>days"
    ),
    "<tool_call>any\n<arg_key>x</arg_key>\n<arg_value>{1</arg_value>\n</tool_call>",
]
REFUSED = [
    CALL.replace("days", "weeks"),
    CALL.replace(">3<", ">three<"),
    CALL.replace("[7, 8]", '["seven"]'),
    CALL.replace("weather", "time"),
    CALL.replace(
        "<arg_key>days", "<arg_key>unit</arg_key>\n<arg_value>K</arg_value>\n<arg_key>days"
    ),
    "<tool_call>weather\n<arg_key>days</arg_key>\n<arg_value>3</arg_value>\n</tool_call>",
    "<tool_call>now\n<arg_key>x</arg_key>\n<arg_value>1</arg_value>\n</tool_call>",
]


@pytest.mark.parametrize("choice", ["auto", "required"])
def test_calls_are_held_to_their_schemas(choice: str) -> None:
    rules = grammar(tool_choice=choice)
    assert [text for text in ALLOWED if not allows(rules, text)] == []
    assert [text for text in REFUSED if allows(rules, text)] == []
    assert allows(rules, "It is <b>sunny</b>.") is (choice == "auto")
    assert allows(rules, "Let me see.\n" + CALL) is (choice == "auto")


def test_thoughts_may_begin_after_a_line_break() -> None:
    """As templates write them, and so models: also before a call that is required."""
    model = served(TEMPLATE + "{# <think></think> #}")
    required = asked(tool_choice="required")
    rules = chat_plan(model, required, None, render(model, required)).grammar
    for text in ("<think>So.</think>\n", "\n<think>So.</think>\n", ""):
        assert allows(rules, text + NOW), text


def test_calls_are_read_rendered_and_read_again() -> None:
    model, first = served(), asked()
    plan = chat_plan(model, first, None, render(model, first))
    message, reason = read(plan, "Let me see.\n" + CALL + "\n" + NOW)
    assert reason == "tool_calls" and message["content"] == "Let me see."
    calls = [call["function"] for call in message["tool_calls"]]
    assert [call["name"] for call in calls] == ["weather", "now"]
    assert [json.loads(call["arguments"]) for call in calls] == [ARGUMENTS, {}]
    results = [
        {"role": "tool", "tool_call_id": call["id"], "content": "sunny"}
        for call in message["tool_calls"]
    ]
    again = render(model, asked(message, *results))
    assert CALL in again
    reread, _ = read(plan, again[again.rindex("Let me see") : again.index("<|tool|>")])
    assert [call["function"] for call in reread["tool_calls"]] == calls


VALUES = [
    ("city", "3", "3"),
    ("days", "3", 3),
    ("days", "many", "many"),
    ("note", "null", None),
    ("note", "late", "late"),
    ("where", '{"lat": 47.4}', {"lat": 47.4}),
    ("other", "[1]", [1]),
]


@pytest.mark.parametrize(("key", "text", "value"), VALUES)
def test_a_value_is_what_its_schema_says(key: str, text: str, value: object) -> None:
    reader = TaggedCallReader(GLM, FUNCTIONS)  # type: ignore[arg-type]
    call = (
        f"<tool_call>weather\n<arg_key>{key}</arg_key>\n<arg_value>{text}</arg_value></tool_call>"
    )
    said = Message()
    for part in reader.push(call) + reader.flush():
        said.add(part)
    assert json.loads(said.calls[0].arguments) == {key: value}


def parts_in(pieces: list[str]) -> tuple[str, list[tuple[str, str]]]:
    reader, said = TaggedCallReader(GLM, FUNCTIONS), Message()  # type: ignore[arg-type]
    for part in [part for piece in pieces for part in reader.push(piece)] + reader.flush():
        said.add(part)
    return said.text, [(call.name, call.arguments) for call in said.calls]


TEXTS = [
    CALL + "\n" + NOW,
    "a <tool_ b" + NOW,
    "<tool_call>nothing here",
    CALL[:-30],
    "<tool_call>",
]


@given(st.sampled_from(TEXTS), st.lists(st.integers(0, 250), max_size=8))
def test_pieces_make_no_difference(text: str, cuts: list[int]) -> None:
    edges = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    pieces = [text[a:b] for a, b in itertools.pairwise(edges)]
    assert parts_in(pieces) == parts_in([text])


def test_what_only_looks_like_a_call_is_text() -> None:
    assert parts_in(["<tool_call>nothing here"]) == ("<tool_call>nothing here", [])
    assert parts_in(["a <tool_", " b"]) == ("a <tool_ b", [])
