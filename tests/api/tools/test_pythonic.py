"""Calls as Llama 4 writes them, as Python: held to their schemas, read whatever pieces they come
in, their values exactly."""

from __future__ import annotations

import itertools
import json
from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.answers.events import Message
from api.answers.plan import chat_plan
from api.requests.openai import parse_conversation
from api.requests.prompts.conversation import Conversation
from api.requests.prompts.prompting import render
from api.served_model import ServedModel
from api.tools.dialects import LLAMA4_PYTHONIC
from api.tools.pythonic import MAX_DEPTH, json_of
from api.tools.pythonic_reader import PythonicReader
from tests.api.tools.test_round_trips import allows, model, read

SCHEMA: dict[str, object] = {
    "type": "object",
    "properties": {
        "unit": {"enum": ["C", "F"]},
        "city": {"type": "string"},
        "days": {"type": "integer"},
        "rain": {"type": "boolean"},
        "hours": {"type": "array", "items": {"$ref": "#/$defs/hour"}},
    },
    "required": ["city"],
    "$defs": {"hour": {"type": "integer"}},
}
FUNCTIONS: dict[str, dict[str, object]] = {
    "weather": SCHEMA, "now": {"type": "object", "properties": {}}, "any": {},
}  # fmt: skip
QUESTION = {"role": "user", "content": "How is it in Zürich?"}
CITY = 'Zürich, {"}) or ('
CALL = f"weather(city={json.dumps(CITY, ensure_ascii=False)}, days=3, rain=True, hours=[7, 8])"
ARGUMENTS = {"city": CITY, "days": 3, "rain": True, "hours": [7, 8]}


@cache
def served() -> ServedModel:
    return model("Llama-4-pythonic")


def asked(*messages: object, **more: object) -> Conversation:
    tools = [
        {"type": "function", "function": {"name": name, "parameters": schema}}
        for name, schema in FUNCTIONS.items()
    ]
    return parse_conversation({"messages": [QUESTION, *messages], "tools": tools, **more})


ALLOWED = [
    f"[{CALL}]",
    f"[{CALL}, now()]",
    "[now()]",
    '[weather(city="Ulm")]',
    '[weather(unit="F", city="Ulm", rain=false)]',
    '[any(x=[null, 1.5], y_2={"a": true})]',
    "[any()]",
]
REFUSED = [
    f"[{CALL}",
    CALL,
    "[weather()]",
    "[weather(city=Ulm)]",
    '[weather(days=3, city="Ulm")]',  # the order is the schema's
    '[weather(city="Ulm" days=3)]',
    '[weather(city="Ulm", days="3")]',
    '[weather(city="Ulm", rain="True")]',
    '[weather(unit="K", city="Ulm")]',
    '[weather(town="Ulm")]',
    "[now(x=1)]",
    "[other()]",
]


@pytest.mark.parametrize("choice", ["auto", "required"])
def test_calls_are_held_to_their_schemas(choice: str) -> None:
    plan = chat_plan(served(), asked(tool_choice=choice), None, "closed")
    free = ["[other()]", CALL]  # these begin like no call of a function that is offered
    refused = [text for text in REFUSED if choice == "required" or text not in free]
    assert [text for text in ALLOWED if not allows(plan.grammar, text)] == []
    assert [text for text in refused if allows(plan.grammar, text)] == []
    marked = f"Well.<|python_start|>[{CALL}]<|python_end|>"
    assert allows(plan.grammar, marked) is (choice == "auto")


def test_calls_are_read_rendered_and_read_again() -> None:
    plan = chat_plan(served(), asked(), None, render(served(), asked()))
    message, reason = read(plan, f"[{CALL}, now()]")
    assert reason == "tool_calls" and message["content"] is None
    calls = [call["function"] for call in message["tool_calls"]]
    assert [call["name"] for call in calls] == ["weather", "now"]
    assert [json.loads(call["arguments"]) for call in calls] == [ARGUMENTS, {}]
    results = [
        {"role": "tool", "tool_call_id": call["id"], "content": "sunny"}
        for call in message["tool_calls"]
    ]
    again = render(served(), asked(message, *results))
    assert f"[{CALL.replace('True', 'true')}, now()]<|eot|>" in again
    reread, _ = read(
        plan, again[again.rindex("[weather(") : again.rindex("<|eot|><|header_start|>ip")]
    )
    assert [call["function"]["name"] for call in reread["tool_calls"]] == ["weather", "now"]
    assert [json.loads(c["function"]["arguments"]) for c in reread["tool_calls"]] == [ARGUMENTS, {}]


VALUES = [
    ("3", 3), ("-1.50e3", -1500.0), ("true", True), ("True", True), ("None", None),
    ('"a\\tb"', "a\tb"), ("'a \"b\" \\'c\\''", "a \"b\" 'c'"), (r'"\u00e9\x41"', "éA"),
    (r"'\ud83e\udd99'", "🦙"), (r"'\U0001F999'", "🦙"), (r"'\d+'", r"\d+"), ("''", ""),
    ("[1, 'a', (2, None), ]", [1, "a", [2, None]]),
    ("{'a': {\"b\": [True]}}", {"a": {"b": [True]}}),
    ("()", []), ("{}", {}),
    # no literals: the text itself
    ("Paris", "Paris"), ("f(1)", "f(1)"), ("NaN", "NaN"), ("1 + 2", "1 + 2"), ("{1: 2}", "{1: 2}"),
    ("'a' 'b'", "'a' 'b'"), ("[1 2]", "[1 2]"), ("'a", "'a"), (r"'\xZZ'", r"'\xZZ'"), ("01", "01"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "value"), VALUES)
def test_a_literal_is_the_value_that_python_gives_it(text: str, value: object) -> None:
    assert json.loads(json_of(text)) == value


def test_numbers_stay_as_they_are_written() -> None:
    for text in ("1.10", "1e400", "9" * 5000, "0.1000000000000000055"):
        assert json_of(text) == text
        assert json_of(f"[{text}, 'a']") == f'[{text}, "a"]'


def test_deep_values_are_texts() -> None:
    deep = "[" * (MAX_DEPTH + 2) + "None" + "]" * (MAX_DEPTH + 2)
    assert json.loads(json_of(deep)) == deep
    assert json.loads(json_of("[" * 100_000)) == "[" * 100_000


@given(st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=6,
))  # fmt: skip
def test_what_python_and_json_write_is_read(value: object) -> None:
    try:
        text = repr(value)
        text.encode()
    except UnicodeEncodeError:
        return
    assert json.loads(json_of(text)) == value
    assert json.loads(json_of(json.dumps(value))) == value


def parts_in(pieces: list[str]) -> tuple[str, list[tuple[str, str]], int]:
    reader, said = PythonicReader(LLAMA4_PYTHONIC, list(FUNCTIONS)), Message()
    for part in [part for piece in pieces for part in reader.push(piece)] + reader.flush():
        said.add(part)
    return said.text, [(call.name, call.arguments) for call in said.calls], reader.n_complete


WEATHER = ("weather", json.dumps(ARGUMENTS, ensure_ascii=False))
CASES = [
    (f"[{CALL}, now()]", "", [WEATHER, ("now", "{}")]),
    (f"<|python_start|>[{CALL}]<|python_end|>", "", [WEATHER]),
    ("Well: <|python_start|>[now( )]<|python_end|>", "Well:", [("now", "{}")]),
    ("[weather(city='Ulm',days = 3,)]", "", [("weather", '{"city": "Ulm", "days": 3}')]),
    ("[weather(city=(1, 2), days={'a': [3]})]", "",
     [("weather", '{"city": [1, 2], "days": {"a": [3]}}')]),
    ("a [now()] b", "a [now()] b", []),
    ("[1, 2]", "[1, 2]", []),
    ("[knowhow()]", "[knowhow()]", []),
    ("<|python_start|>[knowhow(), now()]<|python_end|>", "", [("now", "{}")]),
    ("[weather(city='Ulm", "", []),
    ("[weather('Ulm')]", "", []),
    ("<|python_start|>print(1)", "<|python_start|>print(1)", []),
]  # fmt: skip


@pytest.mark.parametrize(("text", "content", "calls"), CASES)
def test_calls_are_read(text: str, content: str, calls: list[tuple[str, str]]) -> None:
    assert parts_in([text]) == (content, calls, len(calls))


@given(st.sampled_from(CASES), st.lists(st.integers(0, 120), max_size=8))
def test_pieces_make_no_difference(
    case: tuple[str, str, list[tuple[str, str]]], cuts: list[int]
) -> None:
    text, content, calls = case
    edges = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    pieces = [text[a:b] for a, b in itertools.pairwise(edges)]
    assert parts_in(pieces) == (content, calls, len(calls))
    assert parts_in(list(text)) == (content, calls, len(calls))
