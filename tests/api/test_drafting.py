"""Guessed tokens: bodies say how many, timings and metrics tell what became of them."""

from __future__ import annotations

import pytest

from api.engines.in_process import InProcessEngineClient
from dllama.engine.engine import Engine
from dllama.requests import Submit
from tests.api.serving import MAX_SEQ_LEN, VOCAB_SIZE, ask, run, says, served, serving
from tests.dllama.engine.history_runner import HistoryRunner
from tests.scripted_runner import ScriptedEngine

HELLO = [{"role": "user", "content": "Hello"}]
ROUTES: list[tuple[str, dict[str, object]]] = [
    ("/v1/chat/completions", {"messages": HELLO}),
    ("/v1/completions", {"prompt": "Hello"}),
    ("/completion", {"prompt": "Hello"}),
    ("/v1/messages", {"messages": HELLO, "max_tokens": 10}),
    ("/v1/responses", {"input": "Hello"}),
]


def submitted(path: str, body: dict[str, object]) -> Submit:
    engine = ScriptedEngine(says("yes"))
    reply = ask(engine, lambda server: server.post(path, body))
    assert reply.status == 200, reply.data
    [submit] = engine.submitted
    return submit


@pytest.mark.parametrize(("path", "body"), ROUTES)
def test_fields_reach_the_engine(path: str, body: dict[str, object]) -> None:
    plain = submitted(path, body)
    assert (plain.draft_max, plain.draft_min, plain.draft_p_min) == (None, 0, 0.0)
    fields = {"speculative.n_max": 9, "speculative.n_min": 3, "speculative.p_min": 0.75}
    asked = submitted(path, {**body, **fields})
    assert (asked.draft_max, asked.draft_min, asked.draft_p_min) == (9, 3, 0.75)
    off = submitted(path, {**body, "speculative.n_max": 0, "speculative.n_min": 3})
    assert (off.draft_max, off.draft_min) == (0, 0)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("speculative.n_max", -1), ("speculative.n_max", "many"), ("speculative.n_min", 5000),
        ("speculative.p_min", 1.5),
    ],
)  # fmt: skip
def test_a_wrong_value_is_a_400_with_its_name(name: str, value: object) -> None:
    body = {"messages": HELLO, name: value}
    reply = ask(ScriptedEngine(says("yes")), lambda s: s.post("/v1/chat/completions", body))
    assert reply.status == 400 and reply.error["param"] == name


def test_timings_and_metrics_tell_of_guesses() -> None:
    runner = HistoryRunner(vocab_size=VOCAB_SIZE, max_seq_len=MAX_SEQ_LEN)
    engine = Engine(runner, speculate=4)
    body = {"prompt": "Hello", "n_predict": 41, "temperature": 0, "logit_bias": [[70, 100]]}

    async def tour() -> None:
        async with serving(served(InProcessEngineClient(engine))) as server:
            reply = await server.post("/completion", {**body, "speculative.n_max": 0})
            assert reply.status == 200, reply.data
            plain, n_plain = reply.json, len(runner.step_sizes)
            assert "draft_n" not in plain["timings"]
            assert plain["generation_settings"]["speculative.n_max"] == 0
            found = (await server.post("/completion", body)).json
            assert found["content"] == plain["content"]
            timings = found["timings"]
            assert timings["predicted_n"] == 41 == plain["timings"]["predicted_n"]
            assert 28 <= timings["draft_n_accepted"] <= timings["draft_n"] <= 40
            assert len(runner.step_sizes) - n_plain < n_plain / 2
            metrics = (await server.get("/metrics")).data.decode()
            for name, n in (
                ("draft_tokens", timings["draft_n"]),
                ("accepted_tokens", timings["draft_n_accepted"]),
            ):
                assert f"llamacpp:spec_decode_num_{name}_total {n}\n" in metrics

    run(tour)
