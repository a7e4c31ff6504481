"""One conversation with an OpenAI-compatible server, over HTTP and server-sent events."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator, Mapping
from typing import NamedTuple
from urllib.parse import urlsplit

from dllama.errors import ClusterError, ConfigError, DllamaError

TIMEOUT_S = 600.0
THOUGHTS = ("reasoning_content", "reasoning")  # what servers call a piece of thoughts


class Piece(NamedTuple):
    """A piece of an answer as it comes."""

    text: str
    is_thought: bool = False


class ChatClient:
    """The messages so far, and the server that answers the next one."""

    def __init__(self, url: str, api_key: str | None, fields: dict[str, object]) -> None:
        try:
            parts = urlsplit(url if "//" in url else f"http://{url}")
            is_address = parts.scheme in ("http", "https") and bool(parts.hostname)
            self._port = parts.port
        except ValueError:  # a bracket or a port that is none
            is_address = False
        if not is_address:
            raise ConfigError(f"{url!r} is no address of a server; write http://127.0.0.1:8080")
        self._parts, self._fields = parts, fields
        self._headers = {"Content-Type": "application/json"}
        if api_key:
            self._headers["Authorization"] = f"Bearer {api_key}"
        self.messages: list[dict[str, str]] = []
        self.is_cut_off = False  # the last answer reached the limit of its tokens

    def ask(self, text: str) -> Iterator[Piece]:
        """Sends the next message; yields the answer as it comes. Both stay in the conversation once
        anything has come, also where the user interrupts, and where it ended in thoughts."""
        question = {"role": "user", "content": text}
        body = {**self._fields, "messages": [*self.messages, question], "stream": True}
        answer = {"role": "assistant", "content": ""}
        has_begun = self.is_cut_off = False
        try:
            for piece in self._stream(body):
                has_begun = True
                name = THOUGHTS[0] if piece.is_thought else "content"
                answer[name] = answer.get(name, "") + piece.text
                yield piece
        finally:
            if has_begun:
                if answer["content"]:
                    answer.pop(THOUGHTS[0], None)  # templates drop them, and so do servers
                self.messages += [question, answer]

    def _stream(self, body: Mapping[str, object]) -> Iterator[Piece]:
        secure = self._parts.scheme == "https"
        kind = http.client.HTTPSConnection if secure else http.client.HTTPConnection
        connection = kind(self._parts.hostname or "", self._port, timeout=TIMEOUT_S)
        try:
            path = self._parts.path.rstrip("/").removesuffix("/v1")
            connection.request(
                "POST", f"{path}/v1/chat/completions", json.dumps(body), self._headers
            )
            yield from self._pieces(connection.getresponse())
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise ClusterError(
                f"the server at {self._parts.geturl()} cannot be reached: {error}; start it with "
                "dllama-root, or name another with --url"
            ) from error
        finally:
            connection.close()

    def _pieces(self, response: http.client.HTTPResponse) -> Iterator[Piece]:
        """Yields what a stream of server-sent events brings. Raises DllamaError with the server's
        words."""
        if response.status != 200:
            raise DllamaError(_message(response.read(), response.status))
        kind = response.headers.get_content_type()
        if kind != "text/event-stream":
            raise DllamaError(
                f"what answers at {self._parts.geturl()} is no OpenAI-compatible server: it sends "
                f"{kind} where a stream of events was asked for; name another with --url"
            )
        for line in response:
            if not line.startswith(b"data: ") or line.strip() == b"data: [DONE]":
                continue
            event = json.loads(line[6:])
            if "error" in event:
                raise DllamaError(str(event["error"].get("message", event["error"])))
            for choice in event.get("choices") or ():
                self.is_cut_off |= choice.get("finish_reason") == "length"
                yield from _pieces_of(choice.get("delta") or {})


def _pieces_of(delta: Mapping[str, str | None]) -> Iterator[Piece]:
    thought = next((delta[name] for name in THOUGHTS if delta.get(name)), None)
    if thought:
        yield Piece(thought, is_thought=True)
    if text := delta.get("content"):
        yield Piece(text)


def _message(body: bytes, status: int) -> str:
    try:
        return str(json.loads(body)["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return f"the server answered {status}: {body[:200]!r}"
