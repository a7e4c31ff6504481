"""Anthropic's blocks and OpenAI's choices among tools: what is honoured reaches the model, what
cannot be read is left out, and what would be missed is refused."""

from __future__ import annotations

from typing import Any

import pytest

from api.left_out import HEADER
from tests.api.serving import Reply, roomy_engine, roomy_model, run, serving, tokenizer
from tests.scripted_runner import ScriptedEngine

MESSAGES = "/v1/messages"
USER = {"role": "user", "content": "Hi"}
TOOLS = [{"name": name, "input_schema": {"type": "object"}} for name in ("f", "g", "h")]


def posted(path: str, body: dict[str, Any], says: str = "yes") -> tuple[Reply, ScriptedEngine]:
    engine, replies = roomy_engine(says), []

    async def told() -> None:
        async with serving(roomy_model(engine)) as server:
            replies.append(await server.post(path, body))

    run(told)
    return replies[0], engine


def prompt(*messages: dict[str, Any], **fields: Any) -> tuple[str, str]:
    """What the model is given, and what is left out."""
    reply, engine = posted(MESSAGES, {"max_tokens": 5, "messages": list(messages), **fields})
    assert reply.status == 200, reply.data
    [submit] = engine.submitted
    return tokenizer().decode(submit.tokens), reply.headers.get(HEADER, "")


def user(*blocks: dict[str, Any]) -> dict[str, Any]:
    return {"role": "user", "content": list(blocks)}


def document(source: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"type": "document", "source": source, **more}


SEARCH_RESULT = {
    "type": "search_result", "title": "Fjords", "source": "https://example.org",
    "content": [{"type": "text", "text": "They are deep."}], "citations": {"enabled": True},
}  # fmt: skip


def test_text_of_any_block_is_told() -> None:
    plain = {"type": "text", "media_type": "text/plain", "data": "Roses are red."}
    parts = {"type": "content", "content": [{"type": "text", "text": "Violets."}]}
    told, left_out = prompt(user(
        document(plain, title="A poem", context="by me", cache_control={"type": "ephemeral"}),
        document(parts), SEARCH_RESULT, {"type": "text", "text": "Well?", "citations": None},
    ))  # fmt: skip
    for text in ("A poem\nby me\nRoses are red.", "Violets.", "Fjords", "They are deep.", "Well?"):
        assert text in told
    assert left_out == ""


def test_results_hold_blocks_too_and_tell_of_errors() -> None:
    call = {"role": "assistant", "content": [
        {"type": "tool_use", "id": "t", "name": "f", "input": None}]}  # fmt: skip
    for content, told in (
        (None, ""), ("done", "done"), ([], ""), ([SEARCH_RESULT], "Fjords\nhttps://example.org"),
        ([{"type": "text", "text": ""}, {"type": "text", "text": "done"}], "done"),
    ):  # fmt: skip
        result = {"type": "tool_result", "tool_use_id": "t", "content": content, "is_error": True}
        assert f"Error: {told}" in prompt(USER, call, user(result), tools=TOOLS)[0]


def test_what_cannot_be_read_is_left_out_and_named() -> None:
    said = {"role": "assistant", "content": [
        {"type": "redacted_thinking", "data": "x"},
        {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {"query": "q"}},
        {"type": "web_search_tool_result", "tool_use_id": "s", "content": []},
        {"type": "text", "text": "It rains."}]}  # fmt: skip
    told, left_out = prompt(USER, said, USER)
    assert "It rains." in told
    assert left_out == (
        "messages[1].content[1]:server_tool_use, messages[1].content[2]:web_search_tool_result"
    )


def test_the_system_is_a_text_or_blocks_anywhere() -> None:
    blocks = [{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}},
              {"type": "text", "text": ""}, {"type": "text", "text": "Be kind."}]  # fmt: skip
    assert "system\nBe brief.\nBe kind." in prompt(USER, system=blocks)[0]
    for nothing in (None, "", [], [{"type": "text", "text": ""}]):
        assert "system" not in prompt(USER, system=nothing)[0]
    assert (
        "Now in rhymes." in prompt(USER, {"role": "system", "content": "Now in rhymes."}, USER)[0]
    )


@pytest.mark.parametrize(
    ("block", "name"),
    [
        ({"type": "image", "source": {"type": "url", "url": "http://x"}}, "messages[0].content[0]"),
        (document({"type": "base64", "media_type": "application/pdf", "data": "x"}),
         "messages[0].content[0].source"),
        ({"type": "container_upload", "file_id": "x"}, "messages[0].content[0]"),
        ({"type": "tool_result", "tool_use_id": "t", "content": [{"type": "image"}]},
         "messages[0].content[0].content[0]"),
        ({"type": ["text"]}, "messages[0].content[0]"),
    ],
)  # fmt: skip
def test_what_would_be_missed_is_refused(block: dict[str, Any], name: str) -> None:
    reply, _ = posted(MESSAGES, {"max_tokens": 5, "messages": [user(block)]})
    assert reply.status == 400
    assert reply.json["error"]["message"].startswith(f"`{name}` ")


@pytest.mark.parametrize(
    "choice",
    [None, {}, {"type": "auto"}, {"type": "none"},
     {"type": "auto", "disable_parallel_tool_use": None},
     {"type": "none", "disable_parallel_tool_use": True}],
)  # fmt: skip
def test_choices_that_force_nothing(choice: object) -> None:
    assert prompt(USER, tools=TOOLS, tool_choice=choice)[1] == ""
    assert prompt(USER, tool_choice=choice)[1] == ""


def allowed(mode: str, *names: str) -> list[tuple[str, dict[str, Any]]]:
    """The same choice on both of OpenAI's routes."""
    flat = [{"type": "function", "name": name} for name in names]
    nested = [{"type": "function", "function": {"name": name}} for name in names]
    tools = [{"type": "function", "name": n, "parameters": {"type": "object"}} for n in "fgh"]
    inner = {"mode": mode, "tools": nested}
    return [
        ("/v1/responses", {"input": "Hi", "tools": tools, "max_output_tokens": 60,
                           "tool_choice": {"type": "allowed_tools", "mode": mode, "tools": flat}}),
        ("/v1/chat/completions",
         {"messages": [USER], "max_tokens": 60,
          "tools": [{"type": "function", "function": tool} for tool in tools],
          "tool_choice": {"type": "allowed_tools", "allowed_tools": inner}}),
    ]  # fmt: skip


def wants(name: str) -> str:
    return f'<tool_call>\n{{"name": "{name}", "arguments": {{}}}}\n</tool_call>'


def called(reply: Reply) -> list[str]:
    """The names of the functions that an answer calls."""
    answer = reply.json
    if "output" in answer:
        return [item["name"] for item in answer["output"] if item["type"] == "function_call"]
    return [call["function"]["name"] for call in answer["choices"][0]["message"]["tool_calls"]]


@pytest.mark.parametrize("route", range(2))
def test_allowed_tools_are_the_only_ones_to_be_called(route: int) -> None:
    path, body = allowed("required", "g", "h")[route]
    for wanted in "fgh":
        reply, engine = posted(path, body, wants(wanted))
        assert reply.status == 200, reply.data
        assert called(reply)[0] in ("gh" if wanted == "f" else wanted)
        told = tokenizer().decode(engine.submitted[0].tokens)
        assert '"f"' in told  # so that a choice does not change the prompt
    free, _ = posted(*allowed("auto", "g")[route], "Well.")
    assert free.status == 200 and b"Well." in free.data
    none, _ = posted(*allowed("required", "x")[route])
    assert none.status == 400 and none.error["param"] == "tool_choice"


@pytest.mark.parametrize("kind", [[], {}, 1, None, True])
def test_a_type_that_is_no_text_is_told(kind: object) -> None:
    message = {"role": "user", "content": [{"type": kind}]}
    body = {"model": "m", "max_tokens": 3, "messages": [message]}
    reply, _ = posted(MESSAGES, body)
    assert reply.status == 400 and "messages[0].content[0]" in reply.json["error"]["message"]
    body = {"model": "m", "max_tokens": 3, "messages": [USER], "tools": [{"type": kind}]}
    assert posted(MESSAGES, body)[0].status in (200, 400)
    assert posted("/v1/responses", {"input": [{"type": kind}]})[0].status in (200, 400)
