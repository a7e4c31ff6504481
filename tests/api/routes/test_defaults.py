"""What the server's flags make of a request that says nothing: request, then flag, then model."""

from __future__ import annotations

from dataclasses import replace

import pytest

from api.body import MAX_DEPTH
from api.config import AnswerDefaults
from api.engines.in_process import InProcessEngineClient
from api.routes import ollama_embeddings
from api.served_model import ServedModel
from dllama.requests import SamplingParams
from tests.api.serving import ask, masks, run, says, served, serving
from tests.scripted_runner import ScriptedEngine

HI = [{"role": "user", "content": "Hi"}]
BODIES = {
    "/completion": {"prompt": "Hi"},
    "/v1/completions": {"prompt": "Hi"},
    "/v1/chat/completions": {"messages": HI},
    "/v1/messages": {"messages": HI, "max_tokens": 50},
    "/v1/responses": {"input": "Hi"},
}
MODEL = SamplingParams(temperature=0.1, top_k=7)


def submitted(path: str, body: dict[str, object], **defaults: object):
    """The one sequence that a request becomes."""
    engine = ScriptedEngine(says("x"), constraints=masks())
    sent = {**BODIES[path], **body}
    said = AnswerDefaults(sampling=MODEL, **defaults)  # type: ignore[arg-type]
    reply = ask(engine, lambda s: s.post(path, sent), defaults=said)
    assert reply.status == 200, reply.data
    [submit] = engine.submitted
    return submit


@pytest.mark.parametrize("path", BODIES)
def test_request_before_flag_before_model(path: str) -> None:
    fields = {"temperature": 0.5, "seed": 42, "ignore_eos": True, "cache_prompt": False}
    told = submitted(path, {}, fields=fields)
    assert (told.sampling.temperature, told.sampling.top_k, told.sampling.seed) == (0.5, 7, 42)
    assert told.stop_ids == [] and told.cache_prompt is False
    own = {"temperature": 0.7, "seed": 5, "ignore_eos": False, "cache_prompt": True}
    told = submitted(path, own, fields=fields)
    assert (told.sampling.temperature, told.sampling.seed) == (0.7, 5)
    assert told.stop_ids and told.cache_prompt is True
    nulls = dict.fromkeys(own)
    told = submitted(path, nulls, fields=fields)
    assert (told.sampling.temperature, told.sampling.seed) == (0.5, 42)


@pytest.mark.parametrize("path", ["/api/chat", "/api/generate"])
def test_flags_count_for_clients_of_ollama_too(path: str) -> None:
    fields = {"temperature": 0.5, "seed": 42, "grammar": 'root ::= "x"'}
    asked: dict[str, object] = {"messages": HI} if path == "/api/chat" else {"prompt": "Hi"}

    def told(**body: object):
        engine = ScriptedEngine(says("x"), constraints=masks())
        sent = {"model": "toy", **asked, **body}
        defaults = AnswerDefaults(sampling=MODEL, fields=fields)
        reply = ask(engine, lambda s: s.post(path, sent), defaults=defaults)
        assert reply.status == 200, reply.data
        return engine.submitted[0]

    flags = told()
    assert (flags.sampling.temperature, flags.sampling.seed) == (0.5, 42)
    assert flags.sampling.top_k == 7 and flags.grammar is not None
    own = told(options={"temperature": 0.7}, format="json")
    assert (own.sampling.temperature, own.sampling.seed) == (0.7, 42)
    assert own.grammar not in (None, flags.grammar)


def test_a_seed_of_minus_one_is_drawn_though_a_flag_names_one() -> None:
    seeds = {
        submitted("/completion", {"seed": -1}, fields={"seed": 42}).sampling.seed for _ in range(3)
    }
    assert 42 not in seeds and len(seeds) == 3


@pytest.mark.parametrize("path", BODIES)
def test_the_length_of_an_answer(path: str) -> None:
    if path != "/v1/messages":  # which always names a length
        assert submitted(path, {}, n_predict=3).max_tokens == 3
    name = "max_output_tokens" if path == "/v1/responses" else "max_tokens"
    assert submitted(path, {name: 20}, n_predict=3).max_tokens == 20


def test_a_native_length_is_told_with_the_settings() -> None:
    engine = ScriptedEngine(says("x" * 20))
    defaults = AnswerDefaults(n_predict=3)
    reply = ask(engine, lambda s: s.post("/completion", {"prompt": "Hi"}), defaults=defaults)
    assert reply.json["generation_settings"]["n_predict"] == 3
    assert reply.json["tokens_predicted"] == 3


def test_a_grammar_of_the_server_gives_way_to_any_form_of_a_request() -> None:
    fields = {"grammar": 'root ::= "x"'}
    path = "/v1/chat/completions"
    default = submitted(path, {}, fields=fields).grammar
    assert default is not None
    own = submitted(path, {"response_format": {"type": "json_object"}}, fields=fields).grammar
    assert own is not None and own != default
    assert submitted(path, {"response_format": {"type": "text"}}, fields=fields).grammar is None
    form = {"type": "json_schema", "schema": {"type": "object"}}
    for said in ({"output_config": {"format": form}}, {"output_format": form}):
        asked = {"max_tokens": 5, **said}
        found = submitted("/v1/messages", asked, fields=fields).grammar
        assert found is not None and found != default


def test_a_last_message_of_the_assistant_without_prefill() -> None:
    messages = [*HI, {"role": "assistant", "content": "Well"}]

    def prompt(defaults: AnswerDefaults, **body: object) -> int:
        engine = ScriptedEngine(says("x"))
        asked = {"messages": messages, **body}
        reply = ask(engine, lambda s: s.post("/v1/chat/completions", asked), defaults=defaults)
        assert reply.status == 200, reply.data
        return len(engine.submitted[0].tokens)

    prefilled, whole = prompt(AnswerDefaults()), prompt(AnswerDefaults(prefills=False))
    assert whole > prefilled  # its end, and the beginning of another message
    assert prompt(AnswerDefaults(prefills=False), continue_final_message=True) == prefilled


@pytest.mark.parametrize(
    ("path", "counting", "body"),
    [
        ("/v1/responses", "/v1/responses/input_tokens", {}),
        ("/v1/messages", "/v1/messages/count_tokens", {"max_tokens": 5}),
    ],
)
def test_routes_that_count_count_what_an_answer_reads_without_prefill(
    path: str, counting: str, body: dict[str, object]
) -> None:
    messages = [*HI, {"role": "assistant", "content": "Well"}]
    asked = {"input" if path == "/v1/responses" else "messages": messages, **body}

    def told(defaults: AnswerDefaults) -> tuple[int, int]:
        engine = ScriptedEngine(says("x"))
        reply = ask(engine, lambda s: s.post(path, asked), defaults=defaults)
        assert reply.status == 200, reply.data
        counted = ask(engine, lambda s: s.post(counting, asked), defaults=defaults)
        return len(engine.submitted[0].tokens), counted.json["input_tokens"]

    prefilled, whole = told(AnswerDefaults()), told(AnswerDefaults(prefills=False))
    assert prefilled[0] == prefilled[1] < whole[0] == whole[1]


def test_a_body_as_deep_as_may_be_is_answered_and_a_deeper_one_refused() -> None:
    def nested(depth: int) -> dict[str, object]:
        value: dict[str, object] = {}
        for _ in range(depth - 2):
            value = {"a": value}
        return {"input": "Hi", "metadata": value}

    for depth, status in ((MAX_DEPTH, 200), (MAX_DEPTH + 1, 400), (253, 400)):
        for stream in (False, True):
            body = {**nested(depth), "stream": stream}
            reply = ask(ScriptedEngine(says("x")), lambda s, b=body: s.post("/v1/responses", b))
            assert reply.status == status, (depth, reply.data[:300])
            assert status != 200 or b"completed" in reply.data[-9000:]


def test_a_variable_of_the_template_may_have_any_name() -> None:
    messages = [*HI, {"role": "assistant", "content": "Well"}]
    body = {"messages": messages, "chat_template_kwargs": {"cut": 1, "kwargs": 2}}
    reply = ask(ScriptedEngine(says("x")), lambda s: s.post("/v1/chat/completions", body))
    assert reply.status == 200, reply.data


def test_an_empty_text_among_others_has_no_vector(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no token stands at the beginning of texts."""

    def without_bos(model: ServedModel, text: str) -> list[int]:
        return list(text.encode())

    monkeypatch.setattr(ollama_embeddings, "encode", without_bos)
    body = {"model": "toy", "input": ["", "Hi"]}
    reply = ask(ScriptedEngine(says("x")), lambda s: s.post("/api/embed", body))
    assert reply.status == 400 and b"is empty" in reply.data


def test_variables_of_the_chat_template() -> None:
    model = replace(
        served(InProcessEngineClient(ScriptedEngine(says("x")))), template_kwargs={"refuse": True}
    )

    async def body() -> None:
        async with serving(model) as server:
            refused = await server.post("/apply-template", {"messages": HI})
            assert refused.status == 400 and "it was told to" in refused.error["message"]
            own = {"messages": HI, "chat_template_kwargs": {"refuse": False}}
            assert (await server.post("/apply-template", own)).status == 200

    run(body)
