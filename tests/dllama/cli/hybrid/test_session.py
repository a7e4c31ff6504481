"""A server and a chat in one terminal: on a real one, with real processes."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import select
import signal
import socket
import struct
import subprocess
import sys
import termios
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest

from dllama.cli.chat_client import ChatClient
from dllama.cli.flags.arguments import DEFAULT_MODEL
from dllama.cli.hybrid.port_owner import Owner, free_after, is_taken, owner_of
from dllama.cli.hybrid.root_words import read_root_words
from dllama.cli.hybrid.session import _beside, _named_in
from dllama.cli.server_address import ServerAddress
from dllama.cli.trust import Untrusted
from dllama.errors import ConfigError, DllamaError
from tests.api.listening import listening
from tests.api.serving import says
from tests.dllama.cli.test_commands import dllama
from tests.ports import own_port
from tests.scripted_runner import ScriptedEngine

WAIT_S = 120.0
ENVIRONMENT = {"TERM": "xterm"}


class Terminal:
    """dllama in a terminal, where somebody types."""

    def __init__(self, *words: str) -> None:
        self._ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 120, 0, 0))
        self.process = subprocess.Popen(
            [sys.executable, "-m", "dllama", *words], stdin=theirs, stdout=theirs, stderr=theirs,
            env=os.environ | ENVIRONMENT, start_new_session=True,
        )  # fmt: skip
        os.close(theirs)
        self.shown = ""

    def type(self, keys: str) -> None:
        os.write(self._ours, keys.encode())

    def wait_for(self, pattern: str) -> re.Match[str]:
        """Returns the next place of what is shown where the pattern is, and drops all before it."""
        until_s = time.monotonic() + WAIT_S
        while time.monotonic() < until_s:
            if found := re.search(pattern, self.shown):
                self.shown = self.shown[found.end() :]
                return found
            if not select.select([self._ours], [], [], 1.0)[0]:
                continue
            try:
                data = os.read(self._ours, 65536)
            except OSError:  # it has ended
                break
            if b"\x1b[6n" in data:  # where is the cursor?
                self.type("\x1b[1;1R")
            self.shown += data.decode(errors="replace")
        raise AssertionError(f"{pattern} is not in {self.shown}")

    def children(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)

    def close(self) -> None:
        with suppress(ProcessLookupError):
            self.process.kill()
        self.process.wait()
        os.close(self._ours)


@contextmanager
def terminal(*words: str) -> Iterator[Terminal]:
    found = Terminal(*words)
    try:
        yield found
    finally:
        found.close()


def test_a_server_and_a_chat_begin_and_end_together() -> None:
    """Ctrl-C ends an answer, Ctrl-D all of it; another dllama picks the server up; a kill leaves
    nothing behind either."""
    port = own_port()
    with terminal("--port", str(port), "--no-history") as one:
        url = one.wait_for(r"in a browser: (http://127.0.0.1:\d+)/")[1]
        assert url == f"http://127.0.0.1:{port}"
        one.wait_for(">>>")
        one.type("What is dllama?\r")
        one.type("\x03")
        one.type("/help\r")
        one.wait_for("begins a new conversation")
        client = ChatClient(ServerAddress(url, None), {})
        assert list(client.ask("Hello")), "Ctrl-C has not ended the server"
        with terminal("--port", str(port), "--no-history") as other:
            other.wait_for("a dllama serves at .* already")
            other.wait_for(">>>")
            other.type("\x04")
            assert other.process.wait(WAIT_S) == 0
        assert is_taken("127.0.0.1", port), "only who started it ends it"
        refused = dllama("up", "--port", port, "-m", __file__)
        assert refused.returncode == 1 and "Another dllama serves" in refused.stderr
        children = one.children()
        assert len(children) >= 2, "a root and its engine"
        one.type("\x04")
        assert one.process.wait(WAIT_S) == 0
    _, alive = psutil.wait_procs(children, WAIT_S)
    assert alive == []


def test_a_chat_that_is_killed_leaves_nothing_behind() -> None:
    with terminal("--chat", "--n-workers", "1", "--no-history", "-m", str(DEFAULT_MODEL)) as one:
        one.wait_for("answers here alone")
        one.wait_for(">>>")
        children = one.children()
        words = [child.cmdline() for child in children]
        [root] = [line for line in words if "root" in line]
        assert any("worker" in line for line in words) and "--api-key" not in root
        url = f"http://127.0.0.1:{root[root.index('--port') + 1]}"
        with pytest.raises(DllamaError, match=r"(?i)key"):
            list(ChatClient(ServerAddress(url, None), {}).ask("Hello"))
        one.process.send_signal(signal.SIGKILL)
        one.process.wait()
        _, alive = psutil.wait_procs(children, WAIT_S)
    assert alive == []


def test_a_server_and_a_chat_over_tls(certificate: tuple[Path, Path]) -> None:
    """The chat believes the certificate of the flags, and no client believes it by itself; another
    dllama with the same certificate joins."""
    cert, key = map(str, certificate)
    flags = ("--port", str(own_port()), "--no-history", "-m", str(DEFAULT_MODEL),
             "--ssl-cert-file", cert, "--ssl-key-file", key)  # fmt: skip
    with terminal(*flags) as one:
        url = one.wait_for(r"in a browser: (https://127.0.0.1:\d+)/")[1]
        one.wait_for(">>>")
        one.type("Hello\r")
        one.type("/stats\r")
        one.wait_for("answer: [1-9][0-9]* tokens")
        with pytest.raises(Untrusted):
            list(ChatClient(ServerAddress(url, None), {}).ask("Hello"))
        with terminal(*flags) as other:
            other.wait_for(f"a dllama serves at {url} already")
            other.wait_for(">>>")
            other.type("\x04")
            assert other.process.wait(WAIT_S) == 0
        one.type("\x04")
        assert one.process.wait(WAIT_S) == 0


def test_who_has_a_port() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        port = other.getsockname()[1]
        assert owner_of(ServerAddress("127.0.0.1:1", None), "127.0.0.1", port) is None
    with listening(ScriptedEngine(says("x"))) as url:
        port = int(url.rpartition(":")[2])
        found = owner_of(ServerAddress(url, None), "127.0.0.1", port)
        assert found is not None and found.models is not None and found.names()
        nearby = free_after("127.0.0.1", port)
        assert nearby is None or nearby > port


def test_a_port_that_another_program_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DLLAMA_PORT", raising=False)
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        words = read_root_words(["--port", str(port)], has_default_model=False, n_workers=0)
        with pytest.raises(ConfigError, match=f"Port {port} is taken by another program"):
            _beside(words)
        monkeypatch.setenv("DLLAMA_PORT", str(port))
        with pytest.raises(ConfigError, match="taken"):
            _beside(read_root_words([], has_default_model=False, n_workers=0))


def test_the_model_that_a_running_server_has() -> None:
    words = read_root_words(["-m", "x/tiny.gguf"], has_default_model=False, n_workers=0)
    assert "--models-autoload" not in words.words and words.names == {"tiny"}
    owner = Owner([{"id": "other", "aliases": ["tiny"]}])
    assert _named_in(words, owner) == "tiny"
    with pytest.raises(ConfigError, match="serves other"):
        _named_in(words, Owner([{"id": "other"}]))
    many = read_root_words([], has_default_model=False, n_workers=0)
    assert many.words[0] == "--models-autoload" and _named_in(many, owner) is None
    default = read_root_words([], has_default_model=True, n_workers=2)
    assert "--shares" in default.words and "--model" in default.words


def test_a_host_that_a_chat_finds() -> None:
    for host, url in (("0.0.0.0", "127.0.0.1"), ("unix:/x,::1", "[::1]"), ("::", "[::1]")):
        words = read_root_words(["--host", host], has_default_model=True, n_workers=0)
        assert words.url == f"http://{url}:8080"
    with pytest.raises(ConfigError, match="unix sockets alone"):
        read_root_words(["--host", "unix:/x"], has_default_model=True, n_workers=0)


def test_a_server_outlives_a_worker_of_its_own() -> None:
    """As one with workers elsewhere does; the end of the root is that of all."""
    port = own_port()
    words = ("up", "--no-chat", "--n-workers", "1", "--port", str(port))
    server = subprocess.Popen(
        [sys.executable, "-m", "dllama", *words], stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert server.stdout is not None
        assert server.stdout.readline().strip().endswith(str(port))
        leashed = [
            child
            for child in psutil.Process(server.pid).children()
            if "dllama.cli.leashed" in " ".join(child.cmdline())
        ]
        [worker] = [child for child in leashed if "worker" in child.cmdline()]
        [root] = [child for child in leashed if "root" in child.cmdline()]
        worker.kill()
        body = json.dumps({"prompt": "What is dllama?", "n_predict": 4}).encode()
        url = f"http://127.0.0.1:{port}/completion"
        with urllib.request.urlopen(url, body, timeout=120) as answer:
            assert json.loads(answer.read())["tokens_predicted"] == 4
        time.sleep(1.5)
        assert server.poll() is None
        root.kill()
        _, told = server.communicate(timeout=60)
        assert server.returncode == 1 and "goes on without it" in told
    finally:
        server.kill()
        server.wait()
