"""Standard streams that are closed, full, cut off or of a small encoding; Ctrl-C in each command.
Never a traceback, and an answer wherever there can be one."""

from __future__ import annotations

import os
import shlex
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.toy_models import write_toy

pytestmark = pytest.mark.skipif(os.name != "posix", reason="a shell redirects the streams")
HOUSE = Path(__file__).parents[4]


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_toy(tmp_path_factory.mktemp("toy") / "toy.gguf")


def command(*words: object) -> list[str]:
    return [sys.executable, "-m", "dllama", *map(str, words)]


def shell(
    words: list[str], redirection: str, environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        ["sh", "-c", f"{shlex.join(words)} {redirection}"], capture_output=True, timeout=120,
        text=True, errors="replace", cwd=HOUSE, env={**os.environ, **(environment or {})},
    )  # fmt: skip
    assert "Traceback" not in done.stderr and "Exception ignored" not in done.stderr, done.stderr
    return done


@pytest.mark.parametrize(
    ("redirection", "code", "said"),
    [
        (">&-", 1, "the output cannot be written (Bad file descriptor)"),
        (">/dev/full", 1, "the output cannot be written (No space left on device)"),
        (">/dev/full 2>&1", 1, ""),
        ("2>&-", 0, ""),
        ("2>/dev/full", 0, ""),
        ("<&-", 0, ""),
    ],
)
def test_streams_that_are_closed_or_full(toy: Path, redirection: str, code: int, said: str) -> None:
    words = command("run", "-m", toy, "--raw", "--temperature", 0, "-n", 5, "hello")
    done = shell(words, redirection)
    assert done.returncode == code and said in done.stderr
    assert bool(done.stdout) == (code == 0)
    assert done.stderr.count("error:") == (1 if said else 0)


@pytest.mark.parametrize("words", [("--help",), ("inspect", "TOY"), ("run", "--help")])
@pytest.mark.parametrize("redirection", [">&-", ">/dev/full"])
def test_every_output_is_missed(toy: Path, words: tuple[str, ...], redirection: str) -> None:
    done = shell(command(*(toy if word == "TOY" else word for word in words)), redirection)
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert "the output cannot be written" in done.stderr


@pytest.mark.parametrize("words", [("--help",), ("inspect", "TOY"), ("run", "-m", "TOY", "hi")])
def test_a_pipe_that_closes_ends_a_command_quietly(toy: Path, words: tuple[str, ...]) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = subprocess.run(
            command(*(toy if word == "TOY" else word for word in words)), stdout=writing,
            stderr=subprocess.PIPE, text=True, timeout=120, cwd=HOUSE, stdin=subprocess.DEVNULL,
        )  # fmt: skip
    finally:
        os.close(writing)
    assert done.returncode == 141
    assert all(line.startswith("loading: ") for line in done.stderr.splitlines())


ENCODINGS = {
    "latin-1": {"PYTHONIOENCODING": "latin-1"},
    "ascii": {"PYTHONIOENCODING": "ascii:strict"},
    "C": {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    "C in UTF-8": {"LC_ALL": "C"},
}


@pytest.mark.parametrize("environment", ENCODINGS.values(), ids=ENCODINGS)
def test_any_encoding_shows_what_it_can(
    tmp_path: Path, toy: Path, environment: dict[str, str]
) -> None:
    """Of a file, and with a word, that the encoding lacks."""
    path = tmp_path / "modèle-日本.gguf"
    path.write_bytes(toy.read_bytes())
    done = shell(command("inspect", path), "", environment)
    assert done.returncode == 0 and "GGUF version 3" in done.stdout
    assert any(shown in done.stdout for shown in ("日", "\\u65e5", "\\udce6\\udc97"))
    done = shell(command("run", "-m", path, "--raw", "-n", 3, "日本"), "", environment)
    assert done.returncode == 0 and done.stdout


def test_a_file_name_that_is_no_text(tmp_path: Path, toy: Path) -> None:
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/m\xff.gguf"))
    path.write_bytes(toy.read_bytes())
    done = shell(command("inspect", path), "", {"PYTHONUTF8": "1"})
    assert done.returncode == 0 and "m\\udcff.gguf" in done.stdout
    done = shell(command("inspect", f"{path}.not"), "", {"PYTHONUTF8": "1"})
    assert done.returncode == 1 and "no file at" in done.stderr


def test_a_prompt_that_is_no_text_is_refused(toy: Path) -> None:
    words = command("run", "-m", toy, "--raw", "-n", 3)
    for end in (r"<<E" + "\n$(printf 'caf\\351')\nE", "\"$(printf 'caf\\351')\""):
        done = shell(words, end, {"PYTHONUTF8": "1"})
        assert done.returncode == 1 and not done.stdout and done.stderr.count("\n") == 1
        assert "UTF-8" in done.stderr


@pytest.mark.parametrize("words", [[""], ["-"], []])
def test_no_prompt_is_said(toy: Path, words: list[str]) -> None:
    done = shell(command("run", "-m", toy, *words), "</dev/null")
    assert done.returncode == 1 and done.stderr.startswith("error: there is no prompt")


INTERRUPTED = {
    "run": ("run", "-m", "TOY", "--workers", "WORKER", "hello"),
    "bench": ("bench", "-m", "TOY", "-p", "8", "-n", "8", "--workers", "WORKER"),
    "chat": ("chat", "--url", "http://WORKER"),
}


def with_sigint() -> None:
    """Gives a child its usual SIGINT, which workers of pytest-xdist ignore and hand on ignored."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.mark.parametrize("words", INTERRUPTED.values(), ids=INTERRUPTED)
def test_an_interrupt_is_one_line(toy: Path, words: tuple[str, ...]) -> None:
    """While a command waits for the one it talks to, which says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.settimeout(60)
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        filled = [word.replace("TOY", str(toy)).replace("WORKER", address) for word in words]
        child = subprocess.Popen(
            command(*filled), stdin=subprocess.PIPE, stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE, cwd=HOUSE, text=True, preexec_fn=with_sigint,
        )  # fmt: skip
        try:
            assert child.stdin is not None
            child.stdin.write("hello\n")
            child.stdin.flush()
            if words[0] == "run":  # it reads a pipe to its end
                child.stdin.close()
                child.stdin = None
            with silent.accept()[0]:
                child.send_signal(signal.SIGINT)
                _, said = child.communicate(timeout=60)
        finally:
            child.kill()
            child.communicate()
    assert child.returncode == 130
    assert said == "interrupted\n"
