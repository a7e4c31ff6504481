"""What dllama does without a command, by its flags and by what it is connected to."""

from __future__ import annotations

import pytest

from dllama.cli.main import is_about_all
from dllama.cli.mode import Mode, mode_of
from dllama.errors import ConfigError


@pytest.mark.parametrize(
    ("words", "terminals", "mode", "rest"),
    [
        ("", (True, True), Mode.HYBRID, []),
        ("-m x", (True, True), Mode.HYBRID, ["-m", "x"]),
        ("-m x -p hi", (True, True), Mode.CLI, ["-m", "x", "-p", "hi"]),
        ("--prompt=hi", (True, True), Mode.CLI, ["--prompt=hi"]),
        ("-m x", (False, True), Mode.CLI, ["-m", "x"]),
        ("-m x", (True, False), Mode.CLI, ["-m", "x"]),
        ("-m x --server", (False, False), Mode.SERVER, ["-m", "x"]),
        ("--chat -m x", (False, False), Mode.CHAT, ["-m", "x"]),
        ("--cli --cli -m x", (True, True), Mode.CLI, ["-m", "x"]),
    ],
)
def test_modes(words: str, terminals: tuple[bool, bool], mode: Mode, rest: list[str]) -> None:
    stdin, stdout = terminals
    found = mode_of(words.split(), is_typed_to=stdin, is_read_by_a_person=stdout)
    assert found == (mode, rest)


@pytest.mark.parametrize("words", ["--server --chat", "--server -p hi", "--chat --prompt=hi"])
def test_modes_that_make_no_sense(words: str) -> None:
    with pytest.raises(ConfigError, match="leave one of them out"):
        mode_of(words.split(), is_typed_to=True, is_read_by_a_person=True)


@pytest.mark.parametrize(
    ("words", "is_about"),
    [("--help", True), ("-m x --help", True), ("nonsense", True), ("--server --help", False),
     ("-m x", False), ("", False), ("--cli -h", False)],
)  # fmt: skip
def test_questions_about_the_whole_program(words: str, is_about: bool) -> None:
    assert is_about_all(words.split()) is is_about
