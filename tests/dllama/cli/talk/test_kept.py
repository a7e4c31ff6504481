"""Conversations in files: what was saved is loaded, and what is none is refused by a sentence."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dllama.cli.talk.commands import Asked, _file_of
from dllama.cli.talk.kept import load_conversation, save_conversation
from dllama.errors import ConfigError

MESSAGES = [
    {"role": "system", "content": "Be kind."},
    {"role": "user", "content": "Grüß dich"},
    {"role": "assistant", "content": "Hello."},
]


def test_what_was_saved_is_loaded(tmp_path: Path) -> None:
    path = tmp_path / "chat.json"
    save_conversation(path, MESSAGES)
    assert load_conversation(path) == MESSAGES
    [kept] = json.loads(path.read_text())
    later = {**kept, "updated": kept["updated"] + 1, "messages": MESSAGES[1:2]}
    path.write_text(json.dumps([later, kept]))  # as the page exports all
    assert load_conversation(path) == MESSAGES[:2]
    assert [p.name for p in tmp_path.iterdir()] == ["chat.json"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "no JSON"), ("3", "no conversation"), ('{"messages": 1}', "no conversation"),
        ('{"messages": [{"role": "root", "content": "x"}]}', "a message that is none"),
        ('{"messages": [{"role": "user", "content": 1}]}', "a message that is none"),
    ],
)  # fmt: skip
def test_what_is_none_is_refused(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "x.json"
    path.write_text(text)
    with pytest.raises(ConfigError, match=said):
        load_conversation(path)
    with pytest.raises(ConfigError, match="cannot be read"):
        load_conversation(tmp_path / "none.json")
    with pytest.raises(ConfigError, match="cannot be written"):
        save_conversation(tmp_path / "none" / "x.json", MESSAGES)


def test_what_cannot_be_saved_is_said_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (Path(), Path("/"), tmp_path / "file" / "chat", tmp_path / ("x" * 300)):
        with pytest.raises(ConfigError, match=r"cannot be written|is a folder"):
            save_conversation(path, MESSAGES)
    half = [{"role": "user", "content": "half \ud83d"}]
    save_conversation(tmp_path / "half.json", half)
    assert load_conversation(tmp_path / "half.json") == [{"role": "user", "content": "half ?"}]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "half.json"]


def test_the_home_of_nobody_is_said() -> None:
    asked = Asked(None, "~nobody-is-called-so/x", None)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="leads nowhere"):
        _file_of(asked, "/save")
