"""Completion, as shells ask for it: the line in a variable, the answers on a descriptor."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("argcomplete")

from tests.toy_models import write_toy


def completed(line: str, folder: Path, program: str = "dllama") -> set[str]:
    """Returns what may follow, for a line that is typed in a folder."""
    module = {"dllama": "dllama", "dllama-root": "dllama.cli.commands.root"}[program]
    code = "import sys; from dllama.cli.main import main, root; " + (
        "main()" if module == "dllama" else "root()"
    )
    answers = folder / "answers"
    environment = os.environ | {
        "_ARGCOMPLETE": "1", "_ARGCOMPLETE_IFS": "\013", "_ARGCOMPLETE_SHELL": "bash",
        "_ARGCOMPLETE_STDOUT_FILENAME": str(answers), "COMP_LINE": line,
        "COMP_POINT": str(len(line)), "COMP_TYPE": "9",
    }  # fmt: skip
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env=environment, capture_output=True, text=True,
        timeout=120,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    return {word.strip() for word in answers.read_text().split("\013") if word.strip()}


def test_what_follows(tmp_path: Path) -> None:
    write_toy(tmp_path / "toy.gguf")
    (tmp_path / "notes.txt").write_text("x")
    assert completed("dllama pe", tmp_path) == {"perplexity"}
    assert {"--speculate", "--spec-draft-model"} <= completed("dllama run --spec", tmp_path)
    assert completed("dllama root --kv-ty", tmp_path) == {"--kv-type"}
    assert completed("dllama root --kv-type ", tmp_path) >= {"f16", "q8_0", "f32"}
    assert completed("dllama-root --sync-type e", tmp_path, "dllama-root") == {"exact"}
    assert {"--server"} == completed("dllama --serv", tmp_path)
    assert "toy.gguf" in completed("dllama run -m ", tmp_path)
    assert "notes.txt" not in completed("dllama -m ", tmp_path)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_every_shell_has_its_code(shell: str) -> None:
    command = [sys.executable, "-m", "dllama", "completion", shell]
    run = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert run.returncode == 0 and "dllama-root" in run.stdout and "dllama" in run.stdout
