"""What a request would cost: the routes that count say what the same body is charged for."""

from __future__ import annotations

from dataclasses import replace

import pytest

from api.answers.reasoning import TAGS
from api.engines.in_process import InProcessEngineClient
from api.tools.dialects import HERMES
from dllama.chat.chat_template import ChatTemplate
from tests.api.serving import Server, masks, run, says, served, serving
from tests.scripted_runner import ScriptedEngine

TEMPLATE = (
    "{% for m in messages %}{{ m.role }}: {{ m.content }}{{ m.tool_calls }}\n{% endfor %}"
    "{{ tools }}<tool_call>{{ enable_thinking }}\nassistant:{% if add_generation_prompt %}"
    "<think>{% endif %}"
)
USER = {"role": "user", "content": "What is the weather in Zürich?"}
SYSTEM = {"role": "system", "content": "Be brief."}
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
FUNCTION = {"name": "weather", "description": "Tells the weather.", "parameters": SCHEMA}
TOOL = {"type": "function", "function": FUNCTION}
ANTHROPIC_TOOL = {"name": "weather", "description": "Tells it.", "input_schema": SCHEMA}
CALL = {
    "id": "call_1", "type": "function",
    "function": {"name": "weather", "arguments": '{"city": "Zürich"}'},
}  # fmt: skip
STREAM = {"stream": True, "stream_options": {"include_usage": True}}
CHATS = [
    {"messages": [USER]},
    {"messages": [SYSTEM, USER], **STREAM, "max_tokens": 5, "temperature": 0},
    {"messages": [USER], "tools": [TOOL]},
    {"messages": [USER], "tools": [TOOL], "tool_choice": "none"},
    {"messages": [USER], "tools": [TOOL], "tool_choice": "required", "max_tokens": 90},
    {"messages": [USER, {"role": "assistant", "content": None, "tool_calls": [CALL]},
                  {"role": "tool", "tool_call_id": "call_1", "content": "sunny"}]},
    {"messages": [USER, {"role": "assistant", "content": "It is"}]},
    {"messages": [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}]},
    {"messages": [USER], "chat_template_kwargs": {"enable_thinking": False}},
    {"messages": [USER], "response_format": {"type": "json_object"}, "max_tokens": 90},
    {"messages": [USER], "n": 2, "stop": ["x"], "logprobs": True, "seed": 1},
]  # fmt: skip
RESPONSES = [
    {"input": "Hi"},
    {"input": [USER], "instructions": "Be brief.", "stream": True, "store": False},
    {"input": "Hi", "tools": [{"type": "function", **FUNCTION}], "max_output_tokens": 90},
    {"input": "Hi", "reasoning": {"effort": "none"}},
    {"input": "Hi", "text": {"format": {"type": "json_object"}}, "max_output_tokens": 90},
]
MESSAGES = [
    {"messages": [USER]},
    {"messages": [USER], "system": [{"type": "text", "text": "Be brief."}], "stream": True},
    {"messages": [USER], "tools": [ANTHROPIC_TOOL], "tool_choice": {"type": "any"}},
    {"messages": [USER, {"role": "assistant", "content": "It is"}], "thinking": {
        "type": "disabled"}},
    {"messages": [
        USER,
        {"role": "assistant", "content": [
            {"type": "tool_use", "id": "call_1", "name": "weather", "input": {"city": "Bern"}}]},
        {"role": "user", "content": [
            {"type": "tool_result", "tool_use_id": "call_1", "content": "sunny"}]},
    ]},
]  # fmt: skip
CASES = [
    *(("/v1/chat/completions", "/input_tokens", body) for body in CHATS),
    *(("/chat/completions", "/input_tokens", body) for body in CHATS[:1]),
    *(("/v1/responses", "/input_tokens", body) for body in RESPONSES),
    *(("/v1/messages", "/count_tokens", body) for body in MESSAGES),
]


async def counted(server: Server, path: str, body: object) -> int:
    reply = await server.post(path, body)
    assert reply.status == 200, reply.data
    return reply.json["input_tokens"]


@pytest.mark.parametrize(("path", "count", "body"), CASES)
def test_the_count_is_what_an_answer_reads(path: str, count: str, body: dict) -> None:
    engine = ScriptedEngine(says("Yes."), max_len=4096, constraints=masks())
    model = replace(
        served(InProcessEngineClient(engine)), chat_template=ChatTemplate(TEMPLATE),
        tool_dialect=HERMES, think_tags=TAGS[0], max_seq_len=4096,
    )  # fmt: skip

    async def check() -> None:
        async with serving(model) as server:
            n_tokens = await counted(server, path + count, body)
            assert engine.submitted == []
            whole = {"max_tokens": 100, **body} if path == "/v1/messages" else body
            assert (await server.post(path, whole)).status == 200
            assert {len(submit.tokens) for submit in engine.submitted} == {n_tokens}

    run(check)


def test_a_prompt_that_does_not_fit_is_counted_all_the_same() -> None:
    long = [{"role": "user", "content": "word " * 500}]

    async def check() -> None:
        async with serving(served(InProcessEngineClient(ScriptedEngine(says("a"))))) as server:
            for path in ("/v1/chat/completions/input_tokens", "/v1/messages/count_tokens"):
                assert await counted(server, path, {"messages": long}) > 500

    run(check)


def test_a_response_is_counted_as_a_part_of_its_conversation() -> None:
    engine = ScriptedEngine(says("Yes."))

    async def check() -> None:
        async with serving(served(InProcessEngineClient(engine))) as server:
            path = "/v1/responses/input_tokens"
            first = (await server.post("/v1/responses", {"input": "Hi"})).json["id"]
            more = {"input": "And?", "previous_response_id": first}
            n_tokens = await counted(server, path, more)
            await server.post("/v1/responses", more)
            assert len(engine.submitted[-1].tokens) == n_tokens
            empty = await counted(server, path, {"input": ""})
            for nothing in ({}, {"input": None}, {"input": []}):
                assert await counted(server, path, nothing) == empty
            assert empty < await counted(server, path, {"instructions": "Be brief."}) < n_tokens

    run(check)
