"""Tools in a prompt: as the client wrote them, byte for byte as transformers renders them."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from api.requests.openai import parse_conversation
from api.requests.prompts.prompting import render
from api.tools.dialects import GENERIC
from tests.api.prompts import SPECIALS, model_with, prompts, source_of
from tests.api.serving import masks, run, says, serving, tokenizer
from tests.dllama.chat.conversations import oracle, user
from tests.scripted_runner import ScriptedEngine
from tests.shared_data import shared_names

NAMES = [name.removeprefix("templates/") for name in shared_names("templates/*.jinja")]
QWEN = "Qwen-Qwen2.5-7B-Instruct.jinja"
HI = [user("Hi")]
PROPERTIES = {
    "zoo": {"description": "Z.", "type": "string"},
    "arc": {"type": "integer", "description": "A."},
}
TOOLS: list[dict[str, Any]] = [
    {
        "type": "function",
        "function": {
            "name": "f",
            "description": "Does <f> & 'é'.",
            "parameters": {"type": "object", "properties": PROPERTIES, "required": ["zoo"]},
        },
    },
    {
        "function": {
            "strict": False,
            "parameters": {
                "required": [],
                "additionalProperties": False,
                "properties": PROPERTIES,
                "title": "G",
                "type": "object",
            },
            "description": "",
            "name": "g",
        },
        "type": "function",
    },
]


@pytest.mark.parametrize("name", NAMES)
def test_the_clients_own_order(name: str) -> None:
    source = source_of(name)
    if model_with(source).tool_dialect is GENERIC:
        pytest.skip("the template knows no tools")
    wanted = oracle(source, HI, TOOLS, True, **SPECIALS)
    assert wanted is not None
    assert prompts(source, {"messages": HI, "tools": TOOLS}) == [wanted]


def test_every_api_tells_the_same_tools() -> None:
    tool = TOOLS[0]["function"]
    anthropic = {**tool, "input_schema": tool["parameters"]}
    del anthropic["parameters"]
    engine = ScriptedEngine(says("a"), max_len=4096, constraints=masks())

    async def body() -> None:
        model = replace(model_with(source_of(QWEN), engine), max_seq_len=4096)
        async with serving(model) as server:
            for path, sent in (
                ("/v1/chat/completions", {"messages": HI, "tools": TOOLS[:1]}),
                ("/v1/messages", {"messages": HI, "tools": [anthropic], "max_tokens": 9}),
                ("/v1/responses", {"input": "Hi", "tools": [{"type": "function", **tool}]}),
            ):
                reply = await server.post(path, sent)
                assert reply.status == 200, reply.data

    run(body)
    wanted = oracle(source_of(QWEN), [user("Hi")], TOOLS[:1], True, **SPECIALS)
    assert wanted is not None
    tokens = tokenizer().encode_prompt(wanted)
    assert [submit.tokens for submit in engine.submitted] == [tokens] * 3


def test_what_is_missing_comes_last() -> None:
    """Templates read a description and properties without asking whether they are there."""
    bare = {"type": "function", "function": {"name": "f"}}
    no_type = {"type": "function", "function": {"parameters": {"required": []}, "name": "g"}}
    null = {"type": "function", "function": {"description": None, "name": "h", "parameters": None}}
    [prompt] = prompts(source_of(QWEN), {"messages": HI, "tools": [bare, no_type, null]})
    lines = prompt.partition("<tools>\n")[2].partition("\n</tools>")[0].split("\n")
    empty = '{"type": "object", "properties": {}}'
    assert lines == [
        '{"type": "function", "function": {"name": "f", "description": "", '
        f'"parameters": {empty}}}}}',
        '{"type": "function", "function": {"parameters": {"required": [], "type": "object", '
        '"properties": {}}, "name": "g", "description": ""}}',
        '{"type": "function", "function": {"description": "", "name": "h", '
        f'"parameters": {empty}}}}}',
    ]


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text("aé\"\\<>&'\n", max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abc", max_size=2), inner),
    max_leaves=8,
)


@settings(max_examples=100, deadline=None)
@given(
    more=st.dictionaries(st.text("xyz-", min_size=1, max_size=3), VALUES, max_size=3),
    schema=st.dictionaries(st.sampled_from(["$comment", "title", "default"]), VALUES),
    names=st.permutations(["name", "description", "parameters"]),
)
def test_any_tool_is_what_json_writes(more: dict, schema: dict, names: list[str]) -> None:
    parts = {
        "name": "f",
        "description": "D",
        "parameters": {**schema, "properties": PROPERTIES, "type": "object"},
    }
    tool = {"type": "function", **more, "function": {**{key: parts[key] for key in names}, **more}}
    conversation = parse_conversation({"messages": HI, "tools": [tool]})
    assert json.dumps(tool, ensure_ascii=False) in render(model_with(source_of(QWEN)), conversation)
