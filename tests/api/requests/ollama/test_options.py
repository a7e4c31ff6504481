"""Ollama's options: the table in the documents is the table in the code."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from api.requests.ollama.options import HONOURED, OFF, TAKEN, unknown_options

DOCUMENT = Path(__file__).resolve().parents[4] / "docs" / "ollama.md"


def test_the_document_names_every_option() -> None:
    table = DOCUMENT.read_text().partition("## Options")[2]
    rows = [line for line in table.splitlines() if line.startswith("| `")]
    honoured, taken, refused = (set(re.findall(r"`(\w+)`", row.split("|")[1])) for row in rows)
    assert honoured <= HONOURED.keys()
    assert taken == TAKEN and refused == OFF.keys()
    assert not unknown_options(dict.fromkeys(honoured | taken | refused))


def test_the_official_clients_options_are_all_known() -> None:
    ollama = pytest.importorskip("ollama", reason="the client is a test extra")
    assert not unknown_options(dict.fromkeys(ollama.Options.model_fields))


def test_what_has_no_meaning_is_named() -> None:
    assert unknown_options({"b": 1, "temperature": 0, "a": None}) == ["a", "b"]
