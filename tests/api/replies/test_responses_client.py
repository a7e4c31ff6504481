"""The Responses API, as OpenAI's official client uses it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from api.response_store import ResponseStore
from dllama.errors import RequestError
from tests.api.listening import listening
from tests.api.serving import ImpatientClient, says, tokenizer
from tests.scripted_runner import ScriptedEngine

openai = pytest.importorskip("openai", reason="the official client is a test extra")

TEXT = "Hello wörld ☕! And more."


@pytest.fixture(scope="module")
def engine() -> ScriptedEngine:
    return ScriptedEngine(says(TEXT), max_len=10**6)


@pytest.fixture(scope="module")
def client(engine: ScriptedEngine) -> Iterator[object]:
    with (
        listening(engine, client=ImpatientClient) as url,
        openai.OpenAI(base_url=url + "/v1", api_key="none", max_retries=0) as client,
    ):
        yield client


def prompt_of(engine: ScriptedEngine) -> str:
    """What the model read last."""
    return tokenizer().decode(engine.submitted[-1].tokens)


def test_a_response(client, engine) -> None:
    answer = client.responses.create(
        model="toy", input="Hi", instructions="Be brief.", temperature=0.5, metadata={"a": "b"}
    )
    assert answer.output_text == TEXT and answer.status == "completed"
    assert answer.id.startswith("resp_") and answer.output[0].id.startswith("msg_")
    assert answer.metadata == {"a": "b"} and answer.temperature == 0.5
    assert answer.usage.output_tokens == len(tokenizer().encode(TEXT))
    assert answer.usage.total_tokens == answer.usage.input_tokens + answer.usage.output_tokens
    assert "system\nBe brief." in prompt_of(engine) and "user\nHi" in prompt_of(engine)


def test_items_become_a_conversation(client, engine) -> None:
    client.responses.create(
        model="toy",
        input=[
            {"role": "user", "content": "One"},
            {
                "type": "message",
                "role": "assistant",
                "content": [{"type": "output_text", "text": "Two"}],
            },
            {"role": "user", "content": [{"type": "input_text", "text": "Three"}]},
        ],
    )
    said = prompt_of(engine)
    assert said.index("user\nOne") < said.index("assistant\nTwo") < said.index("user\nThree")


def test_a_response_that_is_cut(client) -> None:
    answer = client.responses.create(model="toy", input="Hi", max_output_tokens=3)
    assert answer.status == "incomplete"
    assert answer.incomplete_details.reason == "max_output_tokens"
    assert answer.usage.output_tokens == 3


def test_going_on_with_a_response(client, engine) -> None:
    first = client.responses.create(model="toy", input="One", instructions="Forgotten.")
    client.responses.create(model="toy", input="Two", previous_response_id=first.id)
    said = prompt_of(engine)
    assert said.index("user\nOne") < said.index(TEXT) < said.index("user\nTwo")
    assert "Forgotten." not in said
    assert client.responses.retrieve(first.id).output_text == TEXT
    client.responses.delete(first.id)
    for call in (
        lambda: client.responses.retrieve(first.id),
        lambda: client.responses.delete(first.id),
    ):
        with pytest.raises(openai.NotFoundError):
            call()
    unstored = client.responses.create(model="toy", input="One", store=False)
    for gone in (first.id, unstored.id):
        with pytest.raises(openai.BadRequestError) as refused:
            client.responses.create(model="toy", input="Two", previous_response_id=gone)
        assert refused.value.param == "previous_response_id"


def test_events_come_in_order_and_are_numbered(client) -> None:
    events = list(client.responses.create(model="toy", input="Hi", stream=True))
    assert [event.sequence_number for event in events] == list(range(len(events)))
    kinds = [event.type.removeprefix("response.") for event in events]
    n_deltas = kinds.count("output_text.delta")
    assert kinds == [
        "created", "in_progress", "output_item.added", "content_part.added",
        *["output_text.delta"] * n_deltas, "output_text.done", "content_part.done",
        "output_item.done", "completed",
    ]  # fmt: skip
    assert "".join(e.delta for e in events if e.type == "response.output_text.delta") == TEXT
    final = events[-1].response
    assert final.output_text == TEXT and final.usage.output_tokens > 0
    assert {e.item_id for e in events if hasattr(e, "item_id")} == {final.output[0].id}


def test_the_clients_own_stream_helper(client) -> None:
    with client.responses.stream(model="toy", input="Hi") as stream:
        for _ in stream:
            pass
        assert stream.get_final_response().output_text == TEXT


def test_tokens_of_an_input_are_counted(client, engine) -> None:
    counted = client.responses.input_tokens.count(model="toy", input="Hi")
    client.responses.create(model="toy", input="Hi")
    assert counted.input_tokens == len(engine.submitted[-1].tokens)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"input": []}, "input"),
        ({"background": True}, "background"),
        ({"conversation": "c"}, "conversation"),
        ({"max_output_tokens": -2}, "max_output_tokens"),
        ({"temperature": "hot"}, "temperature"),
        ({"prompt": {"id": "p"}}, "prompt"),
        ({"include": ["message.output_text.logprobs"]}, "include"),
        ({"tools": [{"type": "web_search"}], "tool_choice": "required"}, "tool_choice"),
        ({"tools": [{"type": "web_search"}], "tool_choice": {"type": "web_search"}}, "tool_choice"),
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"input": [{"type": "item_reference", "id": "x"}]}, "input[0].type"),
        ({"input": [{"role": "user", "content": [{"type": "input_image"}]}]},
         "input[0].content[0].type"),
        ({"text": {"format": {"type": "xml"}}}, "text.format.type"),
    ],
)  # fmt: skip
def test_what_is_not_honoured_is_refused_by_name(client, fields, param) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        client.responses.create(**{"model": "toy", "input": "Hi", **fields})
    assert refused.value.param == param


def test_an_answer_that_breaks_off_is_a_failed_response(client, engine) -> None:
    before = engine.script
    engine.script = says("x", ends=False)
    try:
        stream = iter(client.responses.create(model="toy", input="Hi", stream=True))
        next(stream)
        engine.runner.loses_node = True
        last = list(stream)[-1]
        assert last.type == "response.failed" and "node 1" in last.response.error.message
    finally:
        engine.script, engine.runner.loses_node = before, False


def test_the_store_forgets_the_oldest() -> None:
    store = ResponseStore(max_responses=2, max_bytes=500)
    for name in "abc":
        store.add({"id": name}, [{"role": "user", "content": name}])
    assert store.find("a") is None and store.find("b") is not None
    store.add({"id": "d"}, [])  # b was used after c
    assert store.find("c") is None and store.find("b") is not None
    store.add({"id": "long"}, [{"content": "x" * 440}])
    assert len(store) == 1 and store.n_bytes <= 500
    store.add({"id": "too long"}, [{"content": "x" * 500}])
    assert store.find("too long") is None
    with pytest.raises(RequestError, match="previous_response_id"):
        store.earlier("too long")
    assert store.remove("long") and not store.remove("long") and store.n_bytes == 0
