"""dllama chat: the conversation it keeps, and what it shows with and without a terminal."""

from __future__ import annotations

import fcntl
import io
import os
import pty
import re
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread

import pytest

from api.answers.reasoning import TAGS
from api.engines.in_process import InProcessEngineClient
from dllama.chat.chat_template import ChatTemplate
from dllama.cli.chat_client import ChatClient, Piece
from dllama.cli.server_address import ServerAddress, refusal
from dllama.cli.talk.commands import COMMANDS, command
from dllama.cli.talk.page import Page
from dllama.cli.talk.talking import talk
from dllama.errors import ConfigError, DllamaError
from tests.api.listening import listening, listening_model
from tests.api.serving import says, served, tokenizer
from tests.dllama.cli.test_commands import dllama
from tests.scripted_runner import ScriptedEngine

THOUGHTS = "<think>\nHm, what may that be?\n</think>\n\n"
TEMPLATE = (
    "{% for m in messages %}{{ m.role }}: {{ m.reasoning_content }}{{ m.content }}\n{% endfor %}"
    "assistant: <think>"
)
LONG = "Tensors are arrays of numbers with several axes, and wondrous things indeed."


@contextmanager
def thinker(text: str) -> Iterator[tuple[str, ScriptedEngine]]:
    """A server whose model thinks first."""
    engine = ScriptedEngine(says(text), max_len=2048)
    model = replace(
        served(InProcessEngineClient(engine)), chat_template=ChatTemplate(TEMPLATE),
        think_tags=TAGS[0], max_seq_len=2048,
    )  # fmt: skip
    with listening_model(model) as url:
        yield url, engine


def text_of(pieces: list[Piece], *, is_thought: bool) -> str:
    return "".join(piece.text for piece in pieces if piece.is_thought == is_thought)


def test_an_answer_and_its_thoughts_come_apart() -> None:
    with thinker("Hm, what may that be?\n</think>\n\nA toy.") as (url, _):
        client = ChatClient(ServerAddress(url, None), {})
        pieces = list(client.ask("Who are you?"))
    assert text_of(pieces, is_thought=True).strip() == "Hm, what may that be?"
    assert text_of(pieces, is_thought=False) == "A toy."
    assert client.messages == [
        {"role": "user", "content": "Who are you?"},
        {"role": "assistant", "content": "A toy."},
    ]


def test_an_exchange_that_ended_in_thoughts_is_kept() -> None:
    """It was cut off by a limit; the next question finds it."""
    with thinker("Hm, what may that be?\n</think>\n\nA toy.") as (url, engine):
        client = ChatClient(ServerAddress(url, None), {"max_tokens": 8})
        thoughts = text_of(list(client.ask("Who are you?")), is_thought=True)
        assert thoughts and client.is_cut_off
        assert client.messages[-1] == {
            "role": "assistant", "content": "", "reasoning_content": thoughts,
        }  # fmt: skip
        list(client.ask("And now?"))
        prompt = tokenizer().decode(engine.submitted[-1].tokens)
    assert "Who are you?" in prompt and "And now?" in prompt and len(client.messages) == 4


def test_a_question_without_an_answer_is_not_kept() -> None:
    client = ChatClient(ServerAddress("127.0.0.1:9", None), {})
    with pytest.raises(DllamaError, match="cannot be reached"):
        list(client.ask("Hi"))
    assert client.messages == []


@pytest.mark.parametrize("url", ["ftp://a", "http://", "http://[::1", "http://a:port"])
def test_what_is_no_address_is_said(url: str) -> None:
    with pytest.raises(ConfigError, match="no address of a server"):
        ChatClient(ServerAddress(url, None), {})


def test_an_error_that_is_no_json_is_told_as_text() -> None:
    body = b"<html>\r\n <p>Not\x00 found\xff</p>"
    assert refusal(body, 404) == "the server answered 404: <html> <p>Not found\ufffd</p>"
    assert refusal(b'{"error": {"message": "no such model"}}', 404) == "no such model"


def test_what_is_no_such_server_is_said() -> None:
    class Page(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()

        def log_message(self, *args: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Page) as server:
        thread = Thread(target=server.handle_request)
        thread.start()
        client = ChatClient(ServerAddress(f"127.0.0.1:{server.server_port}", None), {})
        with pytest.raises(DllamaError, match="no OpenAI-compatible server: it sends text/html"):
            list(client.ask("Hi"))
        thread.join()


def test_commands_change_the_conversation(capfd: pytest.CaptureFixture[str]) -> None:
    client = ChatClient(ServerAddress("127.0.0.1:9", None), {})
    system = {"role": "system", "content": "Be short."}
    turns = [{"role": role, "content": "x"} for role in ("user", "assistant") * 2]
    client.messages = [system, *turns]
    told = [command(client, text, input) for text in ("/undo", "/retry", "/undo", "/retry")]
    assert client.messages == [system] and told == [None, "x", None, None]
    command(client, "/system Be long.", input)
    assert client.system == "Be long."
    command(client, "/clear", input)
    assert client.messages == [{"role": "system", "content": "Be long."}]
    command(client, "/system -", input)
    assert client.messages == []
    for text in ("/help", "/nonsense"):
        assert command(client, text, input) is None
    said = capfd.readouterr().err
    assert "1 exchange\n" in said and "no command /nonsense" in said
    for name, row in COMMANDS.items():
        words = [name, *row.usage.split(), *row.what.split()]
        assert [line.split() for line in said.splitlines()].count(words) == 2


def test_piped_questions_are_answered_on_stdout_alone() -> None:
    with thinker("Hm.\n</think>\n\nA toy.") as (url, _):
        done = dllama("chat", "--url", url, stdin="Hi\n\n/help\nAgain\n")
    assert (done.returncode, done.stdout) == (0, "A toy.\nA toy.\n")
    assert done.stderr.count("thinking…") == 2 and "/undo" in done.stderr


def test_a_piped_question_that_fails_is_told_by_the_exit_code() -> None:
    done = dllama("chat", "--url", "127.0.0.1:9", stdin="Hi\n")
    assert done.returncode == 1 and "cannot be reached" in done.stderr


def test_a_piped_line_that_is_no_text_is_passed_over(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    with listening(ScriptedEngine(says("hello"))) as url:
        lines = io.TextIOWrapper(io.BytesIO(b"caf\xe9\nHi\n"), "utf-8")
        monkeypatch.setattr(sys, "stdin", lines)
        assert talk(ChatClient(ServerAddress(url, None), {})) == 1
    said = capfd.readouterr()
    assert said.out == "hello\n" and "not UTF-8 text: byte 0xe9 at position 3" in said.err


def test_the_help_has_a_line_for_each_command() -> None:
    lines = dllama("chat", "--help").stdout.splitlines()
    for name, row in COMMANDS.items():
        words = [name, *row.usage.split(), *row.what.split()]
        assert [line.split() for line in lines].count(words) == 1


def test_the_help_does_not_show_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DLLAMA_API_KEY", "very-secret")
    assert "very-secret" not in dllama("chat", "--help").stdout


def on_a_terminal(url: str, columns: int, keys: bytes) -> str:
    """What `dllama chat` shows on a terminal of so many columns, where somebody types."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    environment = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "LINES", "NO_COLOR")}
    child = subprocess.Popen(
        [sys.executable, "-m", "dllama", "chat", "--url", url], stdin=theirs, stdout=theirs,
        stderr=theirs, env=environment | {"TERM": "xterm"}, start_new_session=True,
    )  # fmt: skip
    os.close(theirs)
    shown, has_typed = b"", False
    until_s = time.monotonic() + 60
    while time.monotonic() < until_s:
        try:
            data = os.read(ours, 4096)
        except OSError:  # the other end is closed
            break
        shown += data
        if b"\x1b[6n" in data:  # where is the cursor?
            os.write(ours, b"\x1b[1;1R")
        if not has_typed and b">>>" in shown:
            os.write(ours, keys)
            has_typed = True
        if shown.count(b"\x1b[0m") and b"indeed." in shown:
            os.write(ours, b"\x04")
    assert child.wait(20) == 0
    os.close(ours)
    return shown.decode()


def test_a_terminal_shows_whole_words_and_dimmed_thoughts() -> None:
    with thinker("Hm, what?\n</think>\n\n" + LONG) as (url, _):
        shown = on_a_terminal(url, 40, b"Hi\r").replace("\r", "")
    assert "thinking…" in shown and "\x1b[2mHm," in shown
    answer = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown[shown.rindex("Tensors") :])
    assert [line.rstrip() for line in answer.splitlines()][:3] == [
        "Tensors are arrays of numbers with", "several axes, and wondrous things", "indeed.",
    ]  # fmt: skip


def test_a_page_without_a_terminal_is_the_answer_alone(capsys: pytest.CaptureFixture[str]) -> None:
    page = Page(is_live=False)
    for piece in (Piece("Hm", is_thought=True), Piece(LONG), Piece(" " + LONG)):
        page.add(piece)
    page.end("(stopped)")
    assert capsys.readouterr().out == f"{LONG} {LONG}\n"
