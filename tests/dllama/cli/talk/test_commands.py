"""What begins with a slash, on a real server."""

from __future__ import annotations

from pathlib import Path

import pytest

from dllama.cli.chat_client import ChatClient
from dllama.cli.server_address import ServerAddress
from dllama.cli.talk.commands import command
from dllama.cli.talk.line_editor import is_closed
from dllama.cli.talk.server_models import from_menu
from dllama.cli.talk.settings import set_field, settings_in_words
from dllama.errors import ConfigError
from tests.api.listening import listening
from tests.api.serving import says
from tests.scripted_runner import ScriptedEngine


def test_models_stats_and_files(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with listening(ScriptedEngine(says("A toy."))) as url:
        client = ChatClient(ServerAddress(url, None), {})
        list(client.ask("Hi"))
        command(client, "/stats", input)
        command(client, "/model", lambda prompt: "1")
        assert client.fields == {"model": "toy"}
        with pytest.raises(ConfigError, match="no model 'other'; it has toy"):
            command(client, "/model other", input)
        command(client, f"/save {tmp_path / 'chat.json'}", input)
        messages = list(client.messages)
        command(client, "/clear", input)
        command(client, f"/load {tmp_path / 'chat.json'}", input)
        assert client.messages == messages
        with pytest.raises(ConfigError, match="needs the name of a file"):
            command(client, "/save", input)
        assert command(client, "/image cat.png", input) is None
    said = capfd.readouterr().err
    assert "tokens/s" in said and "toy answers from now on" in said and "1 exchange" in said
    assert "/image: no model that runs here takes pictures" in said


def test_a_menu_takes_numbers_names_and_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    rows = [
        {"id": "a", "status": {"value": "loaded"}}, {"id": "b", "status": {"failed": True}},
        {"id": "c", "status": {"value": "unloaded", "downloaded": False}},
    ]  # fmt: skip
    answers = {"2": "b", "a": "a", "": "", "9": "9"}
    for answer, name in answers.items():
        assert from_menu(rows, "a", lambda prompt, answer=answer: answer) == name  # type: ignore[misc]
    said = capfd.readouterr().err
    assert (
        "*  1 a  loaded" in said and "   2 b  failed" in said and "   3 c  not downloaded" in said
    )


def test_settings_are_numbers_of_their_kind() -> None:
    fields: dict[str, object] = {"model": "m"}
    set_field(fields, "temperature", "0.5")
    set_field(fields, "top_k", "3")
    set_field(fields, "seed", "7")
    assert fields == {"model": "m", "temperature": 0.5, "top_k": 3, "seed": 7}
    assert settings_in_words(fields) == "set: temperature 0.5, top_k 3, seed 7"
    for name in ("temperature", "top_k", "seed"):
        set_field(fields, name, "-")
    assert settings_in_words(fields).startswith("nothing is set")
    for name, value, said in (("top_k", "x", "a whole number"), ("heat", "1", "no setting 'heat'")):
        with pytest.raises(ConfigError, match=said):
            set_field(fields, name, value)


def test_triple_quotes_close_a_text() -> None:
    assert is_closed('"""a\nb"""') and is_closed('""""""')
    assert not is_closed('"""') and not is_closed('""""') and not is_closed("a")
