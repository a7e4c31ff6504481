"""Saving, restoring and erasing of conversations, as llama-server's slots and by name."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from api.engines.in_process import InProcessEngineClient
from api.served_model import ModelFacts
from dllama.requests import SessionCall, SessionReply
from tests.api.serving import run, says, served, serving, serving_engine
from tests.scripted_runner import SESSION_BYTES, ScriptedEngine


def test_sessions_are_saved_restored_and_erased(tmp_path: Path) -> None:
    engine = ScriptedEngine(says("x"), session_dir=tmp_path)

    async def body() -> None:
        model = served(InProcessEngineClient(engine))
        async with serving(replace(model, facts=ModelFacts(saves_sessions=True))) as server:
            answer = await server.post("/completion", {"prompt": "Once", "id_slot": 3})
            assert answer.json["id_slot"] == 3
            await server.complete(session_id="me")
            n = len(engine.submitted[0].tokens) + 1  # and the answer
            for path, head in (
                ("/slots/3", {"id_slot": 3}),
                ("/sessions/me", {"session_id": "me"}),
            ):
                named = {"filename": "monday"}
                reply = await server.post(f"{path}?action=save", named)
                assert reply.status == 200, reply.data
                told = reply.json
                n_bytes = SESSION_BYTES + (tmp_path / "monday.session").stat().st_size
                assert told.pop("timings").keys() == {"save_ms"}
                assert told == {**head, **named, "n_saved": n, "n_written": n_bytes}
                reply = await server.post(f"{path}?action=restore", named)
                assert (reply.json["n_restored"], reply.json["n_read"]) == (n, n_bytes)
                reply = await server.request("POST", f"{path}?action=erase")
                assert reply.json == {**head, "n_erased": n}

    run(body)


def test_what_cannot_be_restored_now_is_to_be_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    def busy(self: ScriptedEngine, call: SessionCall) -> SessionReply:
        return SessionReply(call.id, "too few pages are free", 1.0)

    async def body() -> None:
        monkeypatch.setattr(ScriptedEngine, "session", busy)
        model = served(InProcessEngineClient(ScriptedEngine(says("x"))))
        async with serving(replace(model, facts=ModelFacts(saves_sessions=True))) as server:
            reply = await server.post("/slots/3?action=restore", {"filename": "a"})
            assert reply.status == 503 and reply.headers["Retry-After"] == "1"

    run(body)


def test_what_cannot_be_saved_is_refused() -> None:
    async def body() -> None:
        model = served(InProcessEngineClient(ScriptedEngine(says("x"))))
        async with serving(replace(model, facts=ModelFacts(saves_sessions=True))) as server:
            for path, fields, param in (
                ("/slots/3?action=save", {"filename": "a"}, "filename"),  # there is no such session
                ("/slots/3?action=save", {}, "filename"),
                ("/slots/3?action=save", {"filename": 5}, "filename"),
                ("/slots/3?action=move", {}, "action"),
                ("/slots/3", {}, "action"),
                ("/slots/x?action=save", {}, "id"),
                ("/slots/99999?action=save", {}, "id"),
                (f"/sessions/{'x' * 200}?action=save", {}, "session_id"),
            ):
                reply = await server.post(path, fields)
                assert (reply.status, reply.error["param"]) == (400, param), path
        async with serving_engine(ScriptedEngine(says("x"))) as server:
            reply = await server.post("/slots/0?action=save", {"filename": "a"})
            assert (reply.status, reply.error["type"]) == (501, "not_supported_error")

    run(body)
