"""Completion in real shells, as their users install it. Shells that are missing are skipped."""

from __future__ import annotations

import os
import pty
import re
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.toy_models import write_toy

pytest.importorskip("argcomplete")

WAIT_S = 120.0
PROMPT = "READY>"
PROGRAM = """#!{python}
import sys
sys.path.insert(0, {house!r})
from dllama.cli.main import main, root, worker
sys.exit({function}())
"""
HOUSE = Path(__file__).resolve().parents[3]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home with a folder of the programs, where a shell starts, beside a model and a text."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, function in (
        ("dllama", "main"),
        ("dllama-root", "root"),
        ("dllama-worker", "worker"),
    ):
        file = programs / name
        text = PROGRAM.format(python=sys.executable, house=str(HOUSE), function=function)
        file.write_text(text)
        file.chmod(0o755)
    write_toy(tmp_path / "toy.gguf")
    (tmp_path / "notes.txt").write_text("x")
    return tmp_path


def environment(home: Path) -> dict[str, str]:
    kept = {key: os.environ[key] for key in ("LANG",) if key in os.environ}
    return kept | {
        "PATH": f"{home / 'bin'}:{os.environ['PATH']}", "HOME": str(home), "TERM": "dumb",
        "ZDOTDIR": str(home), "XDG_CONFIG_HOME": str(home / ".config"),
    }  # fmt: skip


def needed(shell: str) -> str:
    found = shutil.which(shell)
    if found is None:
        pytest.skip(f"there is no {shell} here")
    return found


def shell_code(home: Path, shell: str) -> str:
    return subprocess.run(
        [str(home / "bin" / "dllama"), "completion", shell], env=environment(home), check=True,
        capture_output=True, text=True, timeout=WAIT_S,
    ).stdout  # fmt: skip


class Shell:
    """An interactive shell, in which somebody types."""

    def __init__(self, home: Path, *command: str) -> None:
        self._ours, theirs = pty.openpty()
        self.process = subprocess.Popen(
            command, cwd=home, env=environment(home), stdin=theirs, stdout=theirs, stderr=theirs,
            start_new_session=True,
        )  # fmt: skip
        os.close(theirs)
        self.shown = ""

    def type(self, keys: str) -> None:
        os.write(self._ours, keys.encode())

    def wait_for(self, text: str) -> str:
        """Returns what is shown up to the next place where the text is."""
        until_s = time.monotonic() + WAIT_S
        while text not in self.shown:
            assert time.monotonic() < until_s, f"{text!r} is not in {self.shown!r}"
            if select.select([self._ours], [], [], 1.0)[0]:
                piece = os.read(self._ours, 65536).decode(errors="replace")
                self.shown += re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|\x07", "", piece)
        before, _, self.shown = self.shown.partition(text)
        return before

    def completes(self, typed: str, line: str) -> None:
        """Types a beginning and Tab, waits for the whole of it, and takes it back."""
        self.type(typed + "\t")
        shown = self.wait_for(line[len(typed) :] if len(typed) < len(line) else line)
        assert "not found" not in shown and "rror" not in shown, shown
        self.type("\x15")

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._ours)


@contextmanager
def running(home: Path, *command: str) -> Iterator[Shell]:
    shell = Shell(home, *command)
    try:
        shell.wait_for(PROMPT)
        yield shell
    finally:
        shell.close()


def check_what_is_completed(shell: Shell) -> None:
    for typed, line in (
        ("dllama perp", "dllama perplexity "),
        ("dllama root --kv-ty", "dllama root --kv-type "),
        ("dllama-root --no-models-aut", "dllama-root --no-models-autoload "),
        ("true && dllama-worker --max-s", "true && dllama-worker --max-sessions "),
        ("true; dllama run --kv-type q8", "true; dllama run --kv-type q8_0 "),
        ("dllama run -m to", "dllama run -m toy.gguf "),
    ):
        shell.completes(typed, line)


def test_zsh_with_an_empty_zshrc(home: Path) -> None:
    zsh = needed("zsh")
    (home / ".zshrc").write_text(f"PS1='{PROMPT}'\n" + shell_code(home, "zsh"))
    with running(home, zsh, "-d", "-i") as shell:
        check_what_is_completed(shell)


def test_zsh_with_completion_of_its_own(home: Path) -> None:
    """As a file of its function path, where others keep theirs."""
    zsh = needed("zsh")
    functions = home / "functions"
    functions.mkdir()
    (functions / "_dllama").write_text(shell_code(home, "zsh"))
    (home / ".zshrc").write_text(
        f"PS1='{PROMPT}'\nfpath=({functions} $fpath)\nautoload -Uz compinit && compinit -i\n"
    )
    with running(home, zsh, "-d", "-i") as shell:
        check_what_is_completed(shell)


def test_bash(home: Path) -> None:
    bash = needed("bash")
    (home / ".bashrc").write_text(f"PS1='{PROMPT}'\n" + shell_code(home, "bash"))
    with running(home, bash, "--rcfile", str(home / ".bashrc"), "-i") as shell:
        check_what_is_completed(shell)


def test_fish(home: Path) -> None:
    """Each program by itself: fish reads completions of a command when that is first typed."""
    fish = needed("fish")
    folder = home / ".config" / "fish" / "conf.d"
    folder.mkdir(parents=True)
    (folder / "dllama.fish").write_text(shell_code(home, "fish"))
    for line, word in (
        ("dllama perp", "perplexity"), ("dllama root --kv-ty", "--kv-type"),
        ("dllama-root --no-models-aut", "--no-models-autoload"),
        ("true; dllama-worker --max-s", "--max-sessions"),
        ("true; dllama run --kv-type q8", "q8_0"), ("dllama run -m to", "toy.gguf"),
    ):  # fmt: skip
        done = subprocess.run(
            [fish, "-c", f"complete -C '{line}'"], cwd=home, env=environment(home), check=True,
            capture_output=True, text=True, timeout=WAIT_S,
        )  # fmt: skip
        found = {row.partition("\t")[0].strip() for row in done.stdout.splitlines()}
        assert found == {word}, (line, done.stdout, done.stderr)
