"""Sessions, deadlines and rolling contexts: what bodies and headers say reaches the engine."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from api.engines.in_process import InProcessEngineClient
from api.served_model import ModelFacts
from dllama.requests import SessionAction, SessionCall, Submit
from tests.api.serving import MAX_SEQ_LEN, ask, run, says, served, serving, tokenizer
from tests.scripted_runner import ScriptedEngine

CHAT = "/v1/chat/completions"
HELLO = [{"role": "user", "content": "Hello"}]


def submitted(
    body: dict[str, object], path: str = CHAT, headers: dict[str, str] | None = None
) -> Submit:
    """What the engine is asked for a body."""
    engine = ScriptedEngine(says("yes"))
    reply = ask(engine, lambda s: s.post(path, body, headers=headers or {}))
    assert reply.status == 200, reply.data
    [submit] = engine.submitted
    return submit


def test_nothing_asked_is_the_defaults() -> None:
    submit = submitted({"messages": HELLO})
    assert (submit.cache_prompt, submit.session_id, submit.deadline_s) == (True, None, None)
    assert (submit.context_shift, submit.n_keep) == (False, 0)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (CHAT, {"messages": HELLO}),
        ("/v1/completions", {"prompt": "Hello"}),
        ("/completion", {"prompt": "Hello"}),
    ],
)
def test_every_field_reaches_the_engine(path: str, body: dict[str, object]) -> None:
    asked = {
        "cache_prompt": False, "session_id": "mine", "timeout_s": 2.5, "context_shift": True,
        "n_keep": 7,
    }  # fmt: skip
    submit = submitted({**body, **asked}, path, {"X-Session-Id": "not this one"})
    assert (submit.cache_prompt, submit.session_id, submit.deadline_s) == (False, "mine", 2.5)
    assert (submit.context_shift, submit.n_keep) == (True, 7)
    assert submitted(body, path, {"X-Session-Id": "of the header"}).session_id == "of the header"
    assert submitted({**body, "id_slot": 3}, path).session_id == "slot-3"
    assert submitted({**body, "id_slot": -1}, path).session_id is None


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("cache_prompt", 1), ("session_id", ""), ("session_id", "x" * 129), ("session_id", 5),
        ("timeout_s", 0), ("timeout_s", "1"), ("context_shift", "yes"), ("n_keep", -2),
        ("id_slot", 5000),
    ],
)  # fmt: skip
def test_a_wrong_value_is_a_400_with_its_name(name: str, value: object) -> None:
    engine = ScriptedEngine(says("yes"))
    reply = ask(engine, lambda s: s.post(CHAT, {"messages": HELLO, name: value}))
    assert reply.status == 400 and reply.error["param"] == name


def test_the_system_prompt_is_kept_unless_told_otherwise() -> None:
    system = {"role": "system", "content": "You are a careful helper. " * 3}
    n_system = len(tokenizer().encode(str(system["content"])))
    asked = {"messages": [system, *HELLO], "context_shift": True}
    submit = submitted(asked)
    before_user = tokenizer().decode(submit.tokens[: submit.n_keep])
    assert submit.n_keep >= n_system and "careful helper" in before_user
    assert "Hello" not in before_user
    assert submitted({**asked, "n_keep": 3}).n_keep == 3
    assert submitted({**asked, "n_keep": -1}).n_keep == -1
    assert submitted({"messages": HELLO, "context_shift": True}).n_keep == 0


def test_a_prompt_may_outgrow_the_context_where_it_shifts() -> None:
    long = {"prompt": "a" * (2 * MAX_SEQ_LEN)}
    engine = ScriptedEngine(says("yes"))
    assert ask(engine, lambda s: s.post("/v1/completions", long)).status == 400
    submit = submitted({**long, "context_shift": True}, "/v1/completions")
    assert len(submit.tokens) > MAX_SEQ_LEN and submit.context_shift


def test_the_server_may_shift_for_everybody() -> None:
    engine = ScriptedEngine(says("yes"))

    async def exchange() -> None:
        client = InProcessEngineClient(engine)
        model = replace(served(client), facts=ModelFacts(context_shift=True))
        async with serving(model) as server:
            for choice in ({}, {"context_shift": False}):
                assert (await server.post(CHAT, {"messages": HELLO, **choice})).status == 200

    run(exchange)
    assert [submit.context_shift for submit in engine.submitted] == [True, False]


def test_a_client_asks_about_sessions(tmp_path: Path) -> None:
    engine = ScriptedEngine(says("yes"), session_dir=tmp_path)

    async def exchange() -> None:
        client = InProcessEngineClient(engine)
        async with serving(served(client)) as server:
            await server.post(CHAT, {"messages": HELLO, "session_id": "mine"})
            call = SessionCall("7", SessionAction.SAVE, "mine", "file")
            reply = await client.session(call)
            assert reply.id == "7" and reply.n_tokens > 0 and reply.error is None
            assert (await client.session(replace(call, session_id="x"))).error is not None

    run(exchange)
