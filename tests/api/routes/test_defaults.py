"""What the server's flags make of a request that says nothing: request, then flag, then model."""

from __future__ import annotations

from dataclasses import replace

import pytest

from api.config import AnswerDefaults
from api.engines.in_process import InProcessEngineClient
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
