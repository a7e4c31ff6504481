"""dllama ps and stop, with servers of one model and of several."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest

from dllama.cli.commands.ps import until
from dllama.cli.main import start
from dllama.cli.server_address import ServerAddress
from dllama.errors import DllamaError
from tests.api.listening import listening, listening_models
from tests.api.models.scripted_source import ScriptedSource
from tests.api.serving import says
from tests.scripted_runner import ScriptedEngine


def test_a_server_of_one_model_lists_it_and_keeps_it(capsys: pytest.CaptureFixture[str]) -> None:
    with listening(ScriptedEngine(says("hello"))) as url:
        assert start(["ps", "--url", url]) == 0
        head, row = capsys.readouterr().out.splitlines()
        assert head.split() == ["NAME", "ID", "SIZE", "PROCESSOR", "CONTEXT", "UNTIL"]
        assert row.split()[0] == "toy:latest" and row.rstrip().endswith("Forever")
        assert start(["ps", "--url", url, "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["models"][0]["name"] == "toy:latest"
        with pytest.raises(DllamaError, match="--sleep-idle-seconds"):
            start(["stop", "toy", "--url", url])
        with pytest.raises(DllamaError, match="no model 'other' in memory; it has toy:latest"):
            start(["stop", "other", "--url", url])


def test_a_server_of_several_frees_one(capsys: pytest.CaptureFixture[str]) -> None:
    with listening_models(lambda: ScriptedSource("one", "two").pool(2)) as url:
        for name in ("one", "two"):
            asked = {"model": name, "messages": [{"role": "user", "content": "Hi"}]}
            ServerAddress(url, None).ask("POST", "/v1/chat/completions", asked, 60)
        assert start(["ps", "--url", url]) == 0
        assert {row.split()[0] for row in capsys.readouterr().out.splitlines()[1:]} == {
            "one:latest", "two:latest",
        }  # fmt: skip
        assert start(["stop", "one", "--url", url]) == 0
        assert "one is unloaded" in capsys.readouterr().err
        assert start(["ps", "--url", url]) == 0
        [row] = capsys.readouterr().out.splitlines()[1:]
        assert row.startswith("two:latest")


def test_when_a_model_is_unloaded_is_said_as_people_say_it() -> None:
    now = datetime(2026, 11, 29, tzinfo=UTC)
    for left, expected in (
        (timedelta(seconds=42), "42 seconds from now"),
        (timedelta(minutes=4, seconds=50), "5 minutes from now"),
        (timedelta(hours=1, minutes=10), "1 hour from now"),
        (timedelta(days=36_500), "Forever"),
        (timedelta(seconds=-1), "Stopping..."),
    ):
        assert until((now + left).isoformat(), now) == expected
    assert until("soon", now) == until(None, now) == "-"
