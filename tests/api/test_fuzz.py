"""Any body at all: never a 500, never a hang, always JSON."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator

import aiohttp
import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from api.requests.fields import SAMPLING
from api.requests.verdicts import CHAT, COMPLETION
from tests.api.serving import Server, masks, says, serving_engine
from tests.scripted_runner import ScriptedEngine

KNOWN = sorted(
    {"model", "stream", "stream_options", "max_tokens", "max_completion_tokens", "n", "stop",
     "seed", "logit_bias", "ignore_eos", "messages", "prompt", "best_of", "chat_template_kwargs",
     "add_generation_prompt", "continue_final_message", "content", "tokens", "with_pieces",
     "add_special", "parse_special", "samplers", "dry_sequence_breakers", "min_keep", "n_probs",
     "post_sampling_probs", *CHAT, *COMPLETION, *SAMPLING}
)  # fmt: skip
PATHS = (
    "/v1/chat/completions", "/v1/completions", "/tokenize", "/detokenize", "/apply-template",
)  # fmt: skip

scalars = (
    st.none()
    | st.booleans()
    | st.integers(-3, 400)
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from(["user", "assistant", "system", "tool", "toy", "text", "", "Hi", "65"])
    | st.text(max_size=10)
)
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["role", "content", "type", "text", "65", "include_usage"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=8,
)
message = st.fixed_dictionaries(
    {"role": st.sampled_from(["user", "assistant", "system", "tool", "x"]) | scalars},
    optional={"content": scalars | values, "tool_calls": values, "name": values},
)
bodies = st.fixed_dictionaries(
    {},
    optional={
        "messages": st.lists(message, max_size=3) | values,
        "prompt": st.text(max_size=20) | st.lists(st.integers(0, 351), max_size=5) | values,
        "content": st.text(max_size=20),
        "tokens": st.lists(st.integers(0, 351), max_size=5),
        "stream": st.booleans(),
    },
).flatmap(
    lambda base: st.dictionaries(st.sampled_from(KNOWN), values, max_size=2).map(
        lambda more: {**more, **base}
    )
)


@pytest.fixture(scope="module")
def ask() -> Iterator[object]:
    """A function that posts to one server that lives through all the examples."""
    loop = asyncio.new_event_loop()
    engine = ScriptedEngine(says("Hello ☕"), constraints=masks())
    context = serving_engine(engine)
    server: Server = loop.run_until_complete(context.__aenter__())

    async def post(path: str, data: bytes) -> tuple[int, bytes]:
        timeout = aiohttp.ClientTimeout(total=20)
        async with server.session.post(server.url + path, data=data, timeout=timeout) as response:
            return response.status, await response.read()

    yield lambda path, data: loop.run_until_complete(post(path, data))
    assert loop.run_until_complete(post("/v1/completions", b'{"prompt": "a"}'))[0] == 200
    loop.run_until_complete(context.__aexit__(None, None, None))
    loop.run_until_complete(loop.shutdown_default_executor())
    loop.close()
    assert not engine.running
    assert not any(thread.name == "engine" for thread in threading.enumerate())


QUICK = settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])


def check(status: int, data: bytes) -> None:
    assert status in (200, 400, 404), data
    if status != 200:
        assert set(orjson.loads(data)["error"]) >= {"message", "type", "param", "code"}
    elif data.startswith(b"data:"):
        assert data.endswith(b"data: [DONE]\n\n")
    else:
        orjson.loads(data)


@QUICK
@given(path=st.sampled_from(PATHS), body=bodies)
def test_any_object(ask, path: str, body: dict[str, object]) -> None:
    check(*ask(path, orjson.dumps(body)))


@QUICK
@given(path=st.sampled_from(PATHS), field=st.sampled_from(KNOWN), value=values)
def test_any_value_in_a_good_request(ask, path: str, field: str, value: object) -> None:
    good: dict[str, dict[str, object]] = {
        "/v1/completions": {"prompt": "a", "max_tokens": 3},
        "/tokenize": {"content": "a"},
        "/detokenize": {"tokens": [65]},
        "/apply-template": {"messages": [{"role": "user", "content": "a"}]},
        "/v1/chat/completions": {
            "messages": [{"role": "user", "content": "a"}],
            "max_tokens": 3,
        },
    }
    check(*ask(path, orjson.dumps({**good[path], field: value})))


@QUICK
@given(path=st.sampled_from(PATHS), data=st.binary(max_size=40))
def test_any_bytes(ask, path: str, data: bytes) -> None:
    check(*ask(path, data))
