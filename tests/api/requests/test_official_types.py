"""Whatever the types of the official clients allow is answered, or refused by a name that the table
says is refused. Nulls, floats and empty values anywhere are never a 500."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterator
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from api.requests.verdicts import Verdict
from benchmarks.fuzz_bodies import places, replaced
from tests.api.requests.fields_page import APIS
from tests.api.requests.official_bodies import bodies
from tests.api.serving import Reply, Server, roomy_engine, roomy_model, serving

pytest.importorskip("openai", reason="the official client is a test extra")
pytest.importorskip("anthropic", reason="the official client is a test extra")

from anthropic.types.beta import message_create_params as beta
from openai.types import completion_create_params, embedding_create_params
from openai.types.chat import completion_create_params as chat
from openai.types.responses import response_create_params as responses

USER = {"role": "user", "content": "Hi"}
Post = Callable[[str, Any], Reply]


def ends_with_the_user(body: dict[str, Any]) -> dict[str, Any]:
    """A conversation that waits for an answer, of limited length."""
    return {"max_tokens": 3, **body, "messages": [*body["messages"], USER]}


def has_an_input(body: dict[str, Any]) -> dict[str, Any]:
    given_input = body.get("input")
    items = given_input if isinstance(given_input, list) else []
    return {"max_output_tokens": 3, **body, "input": [*items, USER]}


def limited(body: dict[str, Any]) -> dict[str, Any]:
    return {"max_tokens": 3, **body, "logprobs": 1}


def has_a_text(body: dict[str, Any]) -> dict[str, Any]:
    """Texts that have a token at least, as the documentation says."""
    texts = body["input"]
    is_good = texts and (isinstance(texts, str) or [] not in texts)
    return body if is_good else {**body, "input": "Hi"}


ROUTES = {
    "chat": (
        "/v1/chat/completions", bodies(chat.CompletionCreateParamsBase, ends_with_the_user),
    ),
    "completions": (
        "/v1/completions", bodies(completion_create_params.CompletionCreateParamsBase, limited),
    ),
    "responses": ("/v1/responses", bodies(responses.ResponseCreateParamsBase, has_an_input)),
    "messages": ("/v1/messages", bodies(beta.MessageCreateParamsBase, ends_with_the_user)),
    "embeddings": (
        "/v1/embeddings", bodies(embedding_create_params.EmbeddingCreateParams, has_a_text),
    ),
}  # fmt: skip
PARTS = ("messages", "input", "system")  # whose parts may be images and the like


@pytest.fixture(scope="module")
def post() -> Iterator[Post]:
    """A function that posts to one server that lives through all the examples."""
    loop = asyncio.new_event_loop()
    context = serving(roomy_model(roomy_engine('{"a": "x"}')))
    server: Server = loop.run_until_complete(context.__aenter__())
    yield lambda path, body: loop.run_until_complete(server.post(path, body))
    loop.run_until_complete(context.__aexit__(None, None, None))
    loop.run_until_complete(loop.shutdown_default_executor())
    loop.close()


def named(reply: Reply) -> str:
    """The field that a refusal names."""
    found = re.match("`([^`]+)`", reply.json["error"]["message"])
    assert found is not None, reply.data
    return found[1]


def is_told(api: str, reply: Reply) -> bool:
    """Whether docs/fields.md says that what is named here is refused."""
    name = named(reply)
    rule = APIS[api][1].get(name)
    if rule is not None and rule.verdict is Verdict.REFUSED:
        return True
    root = re.split(r"[.\[]", name)[0]
    if root in PARTS:
        return "this server takes" in reply.json["error"]["message"]
    return root in ("tool_choice", "include", "top_logprobs", "best_of")


QUICK = settings(
    max_examples=60, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck)
)


@pytest.mark.parametrize("api", ROUTES)
@QUICK
@given(data=st.data())
def test_what_the_types_allow(post: Post, api: str, data: st.DataObject) -> None:
    path, strategy = ROUTES[api]
    body = data.draw(strategy)
    reply = post(path, body)
    assert reply.status in (200, 400), (body, reply.data)
    if reply.status == 400:
        assert is_told(api, reply), (body, reply.data)


NOTHING = st.sampled_from([None, "", [], {}, 0, 1.0, 8.0, False, [None], [""], [{}]])


@pytest.mark.parametrize("api", ROUTES)
@QUICK
@given(data=st.data())
def test_nulls_floats_and_empties_anywhere(post: Post, api: str, data: st.DataObject) -> None:
    path, strategy = ROUTES[api]
    body = data.draw(strategy)
    for _ in range(data.draw(st.integers(1, 3))):
        found = places(body)
        if found:
            body = replaced(body, data.draw(st.sampled_from(found)), data.draw(NOTHING))
    reply = post(path, body)
    assert reply.status in (200, 400), (body, reply.data)
    assert b"did not expect" not in reply.data
    if reply.status == 400:
        orjson.loads(reply.data)


@pytest.mark.parametrize("api", ROUTES)
@QUICK
@given(data=st.data())
def test_a_null_at_the_top_is_as_good_as_nothing(post: Post, api: str, data: st.DataObject) -> None:
    path, strategy = ROUTES[api]
    body = data.draw(strategy)
    without = {k: v for k, v in body.items() if v is not None}
    names = [name for field in APIS[api][0] for name in field.names] + list(APIS[api][1])
    nulls = dict.fromkeys(data.draw(st.lists(st.sampled_from(names), max_size=6)))
    assert post(path, {**nulls, **without}).status == post(path, without).status
