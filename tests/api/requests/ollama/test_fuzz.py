"""Whatever a client of Ollama leaves empty, null or odd: an answer or a sentence, never a 500."""

from __future__ import annotations

import asyncio

import orjson
from hypothesis import given, settings
from hypothesis import strategies as st

from api.config import ApiConfig
from tests.api.serving import masks, run, says, serving_engine
from tests.scripted_runner import ScriptedEngine

ROUTES = ("/api/chat", "/api/generate", "/api/embed", "/api/embeddings", "/api/show")
ODD = st.one_of(
    st.none(), st.booleans(), st.integers(-3, 3), st.floats(-2, 2), st.just(1e300),
    st.sampled_from(["", "0", "json", "a", "high", "\u0000", "{{ .Prompt }}"]),
    st.just([]), st.just({}), st.just([None]), st.just([{}]), st.just([[]]),
)  # fmt: skip
CALL = st.fixed_dictionaries(
    {}, optional={"id": ODD, "function": st.one_of(ODD, st.fixed_dictionaries(
        {"name": st.one_of(ODD, st.just("f")), "arguments": ODD}))},
)  # fmt: skip
MESSAGE = st.fixed_dictionaries(
    {"role": st.sampled_from(["user", "assistant", "system", "tool", None, 5])},
    optional={
        "content": st.one_of(ODD, st.just("Hi")), "thinking": ODD, "images": ODD,
        "tool_name": ODD, "tool_call_id": ODD, "tool_calls": st.one_of(ODD, st.lists(CALL)),
    },
)  # fmt: skip
OPTIONS = st.dictionaries(
    st.sampled_from(["num_predict", "seed", "stop", "temperature", "tfs_z", "num_keep", "num_ctx",
                     "top_k", "mirostat", "samplers", "logit_bias", "new"]),
    ODD, max_size=3,
)  # fmt: skip
NAMES = (
    "messages", "tools", "prompt", "suffix", "system", "template", "context", "raw", "images",
    "format", "keep_alive", "think", "logprobs", "top_logprobs", "shift", "truncate", "input",
    "dimensions", "name", "verbose", "unknown",
)  # fmt: skip
BODY = st.tuples(
    st.dictionaries(st.sampled_from(NAMES), ODD, max_size=4),
    st.fixed_dictionaries(
        {},
        optional={
            "messages": st.lists(MESSAGE, max_size=3), "prompt": st.just("Hi"),
            "options": st.one_of(ODD, OPTIONS), "stream": ODD,
        },
    ),
).map(lambda two: two[0] | two[1])  # fmt: skip


def test_no_body_breaks_a_route() -> None:
    engine = ScriptedEngine(says("Yes."), constraints=masks())

    async def body() -> None:
        async with serving_engine(engine, ApiConfig()) as server:
            loop = asyncio.get_running_loop()

            async def ask(route: str, body: dict) -> None:
                reply = await server.post(route, body)
                if reply.status != 200:
                    assert reply.status in (400, 501), (reply.status, reply.data)
                    error = reply.json["error"]
                    assert isinstance(error, str) and error.endswith("."), error
                    return
                for line in reply.data.splitlines():
                    assert "error" not in orjson.loads(line), line

            @settings(max_examples=200, deadline=None, database=None)
            @given(st.sampled_from(ROUTES), BODY)
            def check(route: str, body: dict) -> None:
                asyncio.run_coroutine_threadsafe(ask(route, body), loop).result(20)

            await asyncio.to_thread(check)

    run(body)
