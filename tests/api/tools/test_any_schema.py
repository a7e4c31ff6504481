"""Any JSON schema as a tool, by the public routes: a call whose arguments are JSON, or with
`strict` a refusal with the path of the keyword."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings

from tests.api.serving import Reply, Server, ask, roomy_engine, roomy_model, run, serving
from tests.dllama.constraints.test_nearest import any_schema

HI = [{"role": "user", "content": "Hi"}]
ODD = {"type": "object", "properties": {"a": {"anyOf": [{"not": {}}, {"type": "string"}]}}}
CALL = '<tool_call>\n{"name": "f", "arguments": {}}\n</tool_call>'
Post = Callable[[str, Any], Reply]


@pytest.fixture(scope="module")
def post() -> Iterator[Post]:
    loop = asyncio.new_event_loop()
    context = serving(roomy_model(roomy_engine(CALL)))
    server: Server = loop.run_until_complete(context.__aenter__())
    yield lambda path, body: loop.run_until_complete(
        server.request("POST", path, data=json.dumps(body))  # which knows no largest integer
    )
    loop.run_until_complete(context.__aexit__(None, None, None))
    loop.run_until_complete(loop.shutdown_default_executor())
    loop.close()


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(schema=any_schema())
def test_it_is_a_tool_that_can_be_called(post: Post, schema: Any) -> None:
    parameters = schema if isinstance(schema, dict) else {"items": schema}
    tool = {"type": "function", "function": {"name": "f", "parameters": parameters}}
    reply = post("/v1/chat/completions", {
        "messages": HI, "tools": [tool], "tool_choice": "required", "max_tokens": 60,
    })  # fmt: skip
    assert reply.status == 200, reply.data
    [choice] = reply.json["choices"]
    if choice["finish_reason"] == "tool_calls":
        for call in choice["message"]["tool_calls"]:
            assert isinstance(json.loads(call["function"]["arguments"]), dict)


def bodies(*, strict: bool | None) -> list[tuple[str, dict[str, Any], str]]:
    """A tool with an odd schema on each route, and the path of its schema."""
    function = {"name": "f", "parameters": ODD, "strict": strict}
    return [
        ("/v1/chat/completions",
         {"messages": HI, "tools": [{"type": "function", "function": function}]},
         "tools[0].function.parameters"),
        ("/v1/responses", {"input": "Hi", "tools": [{"type": "function", **function}]},
         "tools[0].parameters"),
        ("/v1/messages",
         {"messages": HI, "tools": [{"name": "f", "input_schema": ODD, "strict": strict}]},
         "tools[0].input_schema"),
    ]  # fmt: skip


@pytest.mark.parametrize("strict", [None, False])
@pytest.mark.parametrize("route", range(3))
def test_an_odd_keyword_is_no_reason_to_refuse(route: int, strict: bool | None) -> None:
    path, body, _ = bodies(strict=strict)[route]
    replies: list[Reply] = []

    async def told() -> None:
        async with serving(roomy_model(roomy_engine("Well."))) as server:
            replies.append(await server.post(path, body))

    run(told)
    assert replies[0].status == 200, replies[0].data


@pytest.mark.parametrize("route", range(3))
def test_strict_refuses_it_with_its_path(route: int) -> None:
    path, body, param = bodies(strict=True)[route]
    reply = ask(roomy_engine("Well."), lambda s: s.post(path, body))
    assert reply.status == 400
    message = reply.json["error"]["message"]
    assert f"`{param}`" in message and "/properties/a/anyOf/0/not" in message


def test_a_form_is_lenient_unless_it_is_strict() -> None:
    def form(*, strict: bool) -> dict[str, Any]:
        named = {"name": "a", "schema": ODD, "strict": strict}
        return {"response_format": {"type": "json_schema", "json_schema": named}}

    lenient = ask(roomy_engine("{}"), lambda s: s.chat(**form(strict=False), max_tokens=9))
    assert lenient.status == 200
    assert lenient.headers["X-Dllama-Ignored"].endswith("/properties/a/anyOf/0/not")
    refused = ask(roomy_engine("{}"), lambda s: s.chat(**form(strict=True)))
    assert refused.status == 400 and "/properties/a/anyOf/0/not" in refused.error["message"]
