"""Every API tells how many tokens of a prompt were found in the KV cache: all but the last of one
that was asked before."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.api.serving import run, says, serving_engine
from tests.scripted_runner import ScriptedEngine

CHAT = [{"role": "user", "content": "Tell me a story of a king and a mouse."}]
TEXT = "Once upon a time there was a king who had a mouse."

Counts = Callable[[Any], tuple[int, int]]  # of a reply: tokens of the prompt, and those found


def openai(body: Any) -> tuple[int, int]:
    usage = body["usage"]
    return usage["prompt_tokens"], usage["prompt_tokens_details"]["cached_tokens"]


def anthropic(body: Any) -> tuple[int, int]:
    usage = body["usage"]
    n_cached = usage["cache_read_input_tokens"]
    return usage["input_tokens"] + n_cached, n_cached


def responses(body: Any) -> tuple[int, int]:
    usage = body["usage"]
    return usage["input_tokens"], usage["input_tokens_details"]["cached_tokens"]


def native(body: Any) -> tuple[int, int]:
    timings = body["timings"]
    return timings["prompt_n"] + timings["cache_n"], timings["cache_n"]


APIS: dict[str, tuple[dict[str, object], Counts]] = {
    "/v1/chat/completions": ({"messages": CHAT, "max_tokens": 9}, openai),
    "/v1/completions": ({"prompt": TEXT, "max_tokens": 9}, openai),
    "/v1/messages": ({"messages": CHAT, "max_tokens": 9}, anthropic),
    "/v1/responses": ({"input": CHAT, "max_output_tokens": 16}, responses),
    "/completion": ({"prompt": TEXT, "n_predict": 9}, native),
}


@pytest.mark.parametrize("path", APIS)
def test_a_repeated_prompt_finds_all_but_its_last_token(path: str) -> None:
    body, counts = APIS[path]

    async def whole() -> None:
        async with serving_engine(ScriptedEngine(says("He was kind to it, and so on."))) as server:
            for i in range(3):
                reply = await server.post(path, body)
                assert reply.status == 200, reply.data
                n_prompt, n_cached = counts(reply.json)
                assert n_prompt > 20
                assert n_cached == (n_prompt - 1 if i else 0)
            changed = {**body, "cache_prompt": False} if path == "/completion" else None
            if changed is not None:
                assert counts((await server.post(path, changed)).json)[1] == 0

    run(whole)
