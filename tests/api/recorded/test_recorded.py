"""Requests of the shapes that Claude Code, Codex and Open WebUI send, in our own words: each is
answered in a stream that the official clients' types can read."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter

from api.left_out import HEADER
from tests.api.serving import Reply, roomy_engine, roomy_model, run, serving, tokenizer

NEEDED = "the official client is a test extra"
beta = pytest.importorskip("anthropic.types.beta", reason=NEEDED)
chat = pytest.importorskip("openai.types.chat", reason=NEEDED)
responses = pytest.importorskip("openai.types.responses", reason=NEEDED)

CASES = sorted(path.stem for path in Path(__file__).parent.glob("*.json"))
EVENTS: dict[str, TypeAdapter[Any]] = {
    "/v1/messages": TypeAdapter(beta.BetaRawMessageStreamEvent),
    "/v1/responses": TypeAdapter(responses.ResponseStreamEvent),
    "/v1/chat/completions": TypeAdapter(chat.ChatCompletionChunk),
}
TEXT = "There is one file ☕."


def recorded(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((Path(__file__).parent / f"{name}.json").read_text("utf-8"))
    return found


def answered(case: dict[str, Any], says: str) -> tuple[Reply, str]:
    """The reply, and the prompt that the model was given."""
    engine = roomy_engine(says)
    found: list[Reply] = []

    async def body() -> None:
        async with serving(roomy_model(engine)) as server:
            found.append(await server.post(case["route"], case["body"], headers=case["headers"]))

    run(body)
    [submit] = engine.submitted
    return found[0], tokenizer().decode(submit.tokens)


def events(case: dict[str, Any], reply: Reply) -> Iterator[Any]:
    """The events of a stream, each checked against the official types."""
    adapter = EVENTS[case["route"].partition("?")[0]]
    for line in reply.data.split(b"\n"):
        if line.startswith(b"data: ") and line != b"data: [DONE]":
            yield adapter.validate_json(line.removeprefix(b"data: "))


def text_of(route: str, told: list[Any]) -> str:
    reading: dict[str, Callable[[Any], str | None]] = {
        "/v1/messages": lambda e: getattr(getattr(e, "delta", None), "text", None),
        "/v1/responses": lambda e: e.delta if e.type == "response.output_text.delta" else None,
        "/v1/chat/completions": lambda e: e.choices[0].delta.content if e.choices else None,
    }
    read = reading[route.partition("?")[0]]
    return "".join(read(event) or "" for event in told)


@pytest.mark.parametrize("name", CASES)
def test_it_is_answered_in_a_stream_that_the_client_can_read(name: str) -> None:
    case = recorded(name)
    reply, prompt = answered(case, TEXT)
    assert reply.status == 200, reply.data
    told = list(events(case, reply))
    limit = case["body"].get("max_tokens")
    assert text_of(case["route"], told) == (TEXT if limit != 1 else TEXT[:1])
    names = reply.headers.get(HEADER, "")
    assert sorted(names.split(", ") if names else []) == sorted(case["ignored"])
    for piece in case.get("tells", ()):
        assert piece in prompt, piece


@pytest.mark.parametrize(
    ("name", "call", "ends"),
    [
        ("claude_code_first_turn", ("Bash", {"command": "ls"}), "tool_use"),
        ("claude_code_first_turn", ("mcp__files__find", {"glob": "*.py", "options": {"a": None}}),
         "tool_use"),
        ("codex_first_turn", ("shell", {"command": ["ls"]}), "completed"),
        ("open_webui_chat", ("get_weather", {"city": "Oslo", "unit": None}), "tool_calls"),
    ],
)  # fmt: skip
def test_its_tools_can_be_called(name: str, call: tuple[str, Any], ends: str) -> None:
    tool, arguments = call
    written = json.dumps(arguments)
    says = f'<tool_call>\n{{"name": "{tool}", "arguments": {written}}}\n</tool_call>'
    case = recorded(name)
    reply, _ = answered(case, says)
    assert reply.status == 200, reply.data
    told = [event.model_dump_json() for event in events(case, reply)]
    assert any(f'"{tool}"' in event for event in told)
    assert any(f'"{ends}"' in event for event in told)


def test_every_client_has_a_case() -> None:
    for client in ("claude_code", "codex", "open_webui"):
        assert any(name.startswith(client) for name in CASES)
