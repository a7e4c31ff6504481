"""dllama chat: talk to a running server in the terminal."""

from __future__ import annotations

import argparse
import http.client
import json
import os
import sys
from collections.abc import Iterator
from urllib.parse import urlsplit

from prompt_toolkit import PromptSession
from prompt_toolkit.history import InMemoryHistory

from dllama.cli.flags.sampling import add_sampling_flags, given_fields
from dllama.cli.terminal import complain, note, stderr
from dllama.errors import ClusterError, ConfigError, DllamaError

HELP = "/help this list   /clear a new conversation   /undo the last exchange   /exit or Ctrl-D"
TIMEOUT_S = 600.0


class ChatClient:
    """One conversation with an OpenAI-compatible server."""

    def __init__(self, url: str, api_key: str | None, fields: dict[str, object]) -> None:
        parts = urlsplit(url if "//" in url else f"http://{url}")
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigError(f"{url!r} is no address of a server; write http://127.0.0.1:8080")
        self._parts, self._fields = parts, fields
        self._headers = {"Content-Type": "application/json"}
        if api_key:
            self._headers["Authorization"] = f"Bearer {api_key}"
        self.messages: list[dict[str, str]] = []

    def ask(self, text: str) -> Iterator[str]:
        """Sends the next message; yields the answer as it comes. Message and answer stay in the
        conversation only if the answer came whole or was interrupted by the user."""
        messages = [*self.messages, {"role": "user", "content": text}]
        pieces: list[str] = []
        try:
            for piece in self._stream({**self._fields, "messages": messages, "stream": True}):
                pieces.append(piece)
                yield piece
        finally:
            if pieces:
                messages.append({"role": "assistant", "content": "".join(pieces)})
                self.messages = messages

    def _stream(self, body: dict[str, object]) -> Iterator[str]:
        secure = self._parts.scheme == "https"
        kind = http.client.HTTPSConnection if secure else http.client.HTTPConnection
        connection = kind(self._parts.hostname or "", self._parts.port, timeout=TIMEOUT_S)
        try:
            path = self._parts.path.rstrip("/").removesuffix("/v1")
            connection.request(
                "POST", f"{path}/v1/chat/completions", json.dumps(body), self._headers
            )
            yield from _deltas(connection.getresponse())
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise ClusterError(
                f"the server at {self._parts.geturl()} cannot be reached: {error}; start it with "
                "dllama-root, or name another with --url"
            ) from error
        finally:
            connection.close()


def _deltas(response: http.client.HTTPResponse) -> Iterator[str]:
    """Yields the text in a stream of server-sent events. Raises DllamaError with the server's
    words."""
    if response.status != 200:
        raise DllamaError(_message(response.read(), response.status))
    for line in response:
        if not line.startswith(b"data: ") or line.strip() == b"data: [DONE]":
            continue
        event = json.loads(line[6:])
        if "error" in event:
            raise DllamaError(str(event["error"].get("message", event["error"])))
        for choice in event.get("choices", ()):
            if piece := choice.get("delta", {}).get("content"):
                yield piece


def _message(body: bytes, status: int) -> str:
    try:
        return str(json.loads(body)["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return f"the server answered {status}: {body[:200]!r}"


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser], summary: str) -> None:
    parser = commands.add_parser(
        "chat", help=summary, description="Talk to a running server. " + HELP
    )
    parser.add_argument("--url", default="http://127.0.0.1:8080", help="the server (default: here)")
    parser.add_argument("--api-key", default=os.environ.get("DLLAMA_API_KEY"))
    parser.add_argument("--system", metavar="TEXT", help="a system message")
    parser.add_argument("--max-tokens", type=int)
    add_sampling_flags(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    fields = given_fields(args)
    if args.max_tokens is not None:
        fields["max_tokens"] = args.max_tokens
    client = ChatClient(args.url, args.api_key, fields)
    if args.system:
        client.messages.append({"role": "system", "content": args.system})
    return talk(client, bool(args.system))


def talk(client: ChatClient, has_system: bool = False) -> int:
    """Reads lines and prints answers until the user leaves; without a terminal, until input
    ends."""
    is_live = sys.stdin.isatty() and sys.stdout.isatty()
    session: PromptSession[str] | None = None
    if is_live:
        session = PromptSession(history=InMemoryHistory())
        note(f"say something; {HELP}")
    while True:
        try:
            text = (session.prompt(">>> ") if session else input()).strip()
        except KeyboardInterrupt:
            continue
        except EOFError:
            return 0
        if text in ("/exit", "/bye", "/quit"):
            return 0
        if text.startswith("/"):
            command(client, text, has_system)
        elif text:
            speak(client, text)


def command(client: ChatClient, text: str, has_system: bool) -> None:
    """Carries out a line that begins with a slash."""
    first = 1 if has_system else 0
    if text == "/clear":
        del client.messages[first:]
        note("a new conversation")
    elif text == "/undo":
        del client.messages[max(first, len(client.messages) - 2) :]
        note(f"{len(client.messages) - first} messages are left")
    else:
        note(HELP if text in ("/help", "/?") else f"there is no command {text}; {HELP}")


def speak(client: ChatClient, text: str) -> None:
    """Prints one answer as it comes; Ctrl-C ends it."""
    try:
        for piece in client.ask(text):
            sys.stdout.write(piece)
            sys.stdout.flush()
    except KeyboardInterrupt:
        stderr.print("[dim](stopped)[/]", end="")
    except DllamaError as error:
        complain(str(error))
    sys.stdout.write("\n")
    sys.stdout.flush()
