"""What an answer does not follow is told in a header and once in the log, or refused by a strict
server."""

from __future__ import annotations

import logging

import pytest

from api.config import ApiConfig
from api.left_out import HEADER, MAX_LOGGED, shown
from tests.api.serving import Reply, Server, roomy_engine, roomy_model, run, serving

HI = [{"role": "user", "content": "Hi"}]
SEARCH = {"type": "web_search_20250305", "name": "web_search"}
FUNCTION = {"name": "f", "input_schema": {"type": "object"}}
PLAIN = {"type": "function", "function": {"name": "f"}}
CHAT, TEXT, RESPONSES, MESSAGES = (
    "/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/messages",
)  # fmt: skip

# (route, fields, what the header names)
LEFT_OUT: list[tuple[str, dict[str, object], str]] = [
    (CHAT, {"temprature": 0.5}, "temprature"),
    (CHAT, {"stream_options": {"include_usage": True, "x": 1}}, "stream_options.x"),
    (CHAT, {"verbosity": "low"}, "verbosity"),
    (CHAT, {"web_search_options": {"search_context_size": "low"}}, "web_search_options"),
    (CHAT, {"reasoning_effort": "low"}, "reasoning_effort"),
    (CHAT, {"max_tokens": 5, "max_completion_tokens": 6}, "max_tokens"),
    (CHAT, {"tools": [PLAIN, {"type": "custom", "custom": {"name": "c"}}]}, "tools[1]:custom"),
    (CHAT, {"tools": [PLAIN, PLAIN]}, "tools[1].function:f"),
    (
        CHAT,
        {"response_format": {"type": "json_schema", "json_schema": {
            "name": "a", "schema": {"type": "array", "uniqueItems": True}}}},
        "response_format.json_schema.schema/uniqueItems",
    ),
    (TEXT, {"min_tokens": 5}, "min_tokens"),
    (RESPONSES, {"tools": [{"type": "web_search"}, {"type": "local_shell"}]},
     "tools[0]:web_search, tools[1]:local_shell"),
    (RESPONSES, {"text": {"verbosity": "low"}}, "text.verbosity"),
    (RESPONSES, {"reasoning": {"effort": "high", "summary": "auto"}}, "reasoning_effort"),
    (RESPONSES, {"input": [{"type": "web_search_call", "id": "w", "status": "completed",
                            "action": {"type": "search", "query": "q"}}, *HI]},
     "input[0]:web_search_call"),
    (MESSAGES, {"tools": [FUNCTION, SEARCH]}, "tools[1]:web_search_20250305"),
    (MESSAGES, {"thinking": {"type": "enabled", "budget_tokens": 3}}, "thinking.budget_tokens"),
    (MESSAGES, {"context_management": {"edits": []}}, "context_management"),
    (MESSAGES, {"output_config": {"effort": "high"}}, "reasoning_effort"),
    (MESSAGES, {"mcp_servers": [{"type": "url", "url": "http://x", "name": "x"}]}, "mcp_servers"),
    ("/completion", {"prompt": "a", "temprature": 1}, "temprature"),
    ("/tokenize", {"content": "a", "other": 1}, "other"),
    ("/v1/messages/count_tokens", {"tools": [SEARCH]}, "tools[0]:web_search_20250305"),
]  # fmt: skip


def body_of(route: str, fields: dict[str, object]) -> dict[str, object]:
    basic: dict[str, dict[str, object]] = {
        CHAT: {"messages": HI}, TEXT: {"prompt": "Hi"}, RESPONSES: {"input": "Hi"},
        MESSAGES: {"messages": HI, "max_tokens": 9},
        "/v1/messages/count_tokens": {"messages": HI},
    }  # fmt: skip
    return {**basic.get(route, {}), **fields}


def post(route: str, fields: dict[str, object], *, is_strict: bool = False) -> Reply:
    replies: list[Reply] = []

    async def body() -> None:
        config = ApiConfig(strict_fields=is_strict)
        async with serving(roomy_model(roomy_engine("[]")), config=config) as server:
            replies.append(await server.post(route, body_of(route, fields)))

    run(body)
    return replies[0]


@pytest.mark.parametrize(("route", "fields", "names"), LEFT_OUT)
def test_the_header_names_it_and_the_answer_is_given(
    route: str, fields: dict[str, object], names: str
) -> None:
    reply = post(route, fields)
    assert reply.status == 200, reply.data
    assert reply.headers[HEADER] == names


@pytest.mark.parametrize(("route", "fields", "names"), LEFT_OUT)
def test_a_strict_server_refuses_it_by_name(
    route: str, fields: dict[str, object], names: str
) -> None:
    reply = post(route, fields, is_strict=True)
    assert reply.status == 400
    assert f"`{names.split(', ')[0]}`" in reply.json["error"]["message"]
    assert "--strict-fields" in reply.json["error"]["message"]


def test_streams_tell_it_too() -> None:
    reply = post(CHAT, {"stream": True, "odd": 1, "headers": 1})
    assert reply.headers[HEADER] == "odd, headers"


@pytest.mark.parametrize(
    "fields",
    [
        {"user": "me", "metadata": {"a": "b"}, "service_tier": "auto", "store": True},
        {"odd": None, "other": "", "third": [], "fourth": {}},
        {"verbosity": "medium", "modalities": ["text"], "echo": False, "function_call": "auto"},
        {"prediction": {"type": "content", "content": "x"}, "adaptive_target": -1},
        {"max_tokens": 5, "max_completion_tokens": 5},
        {"stream_options": {"include_obfuscation": False}},
    ],
)
def test_what_cannot_change_the_answer_is_not_worth_a_word(fields: dict[str, object]) -> None:
    reply = post(CHAT, fields, is_strict=True)
    assert reply.status == 200 and HEADER not in reply.headers


def test_the_log_says_it_once_and_not_for_ever(caplog: pytest.LogCaptureFixture) -> None:
    async def body() -> None:
        async with serving(roomy_model(roomy_engine("[]"))) as server:
            await say(server)

    async def say(server: Server) -> None:
        for _ in range(3):
            await server.chat(odd=1)
            await server.post(MESSAGES, body_of(MESSAGES, {"tools": [SEARCH]}))
            await server.post(MESSAGES, body_of(MESSAGES, {"tools": [FUNCTION, SEARCH]}))
        await server.chat(**{f"x{i}": 1 for i in range(2 * MAX_LOGGED)})

    with caplog.at_level(logging.WARNING, logger="api.left_out"):
        run(body)
    told = [record.getMessage() for record in caplog.records if record.name == "api.left_out"]
    assert sum("'odd'" in line for line in told) == 1
    assert sum("web_search_20250305" in line for line in told) == 1
    assert len(told) == MAX_LOGGED


def test_a_header_holds_any_name() -> None:
    assert shown(["a\r\nb: c", "é", "a\r\nb: c"]) == "a%0D%0Ab:%20c, %C3%A9"
    many = shown([f"x{i}" for i in range(30)])
    assert many.endswith(", and 10 more") and len(many) < 3000
