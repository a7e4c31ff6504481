"""One conversation with an OpenAI-compatible server, over HTTP and server-sent events."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from dllama.cli.server_address import ServerAddress, refusal
from dllama.errors import DllamaError

TIMEOUT_S = 600.0
THOUGHTS = ("reasoning_content", "reasoning")  # what servers call a piece of thoughts


class Piece(NamedTuple):
    """A piece of an answer as it comes."""

    text: str
    is_thought: bool = False


class ChatClient:
    """The messages so far, and the server that answers the next one. `fields` go with each request;
    `model` is one of them."""

    def __init__(self, server: ServerAddress, fields: dict[str, object]) -> None:
        self.server, self.fields = server, fields
        self.messages: list[dict[str, str]] = []
        self.is_cut_off = False  # the last answer reached the limit of its tokens
        self.timings: dict[str, float] = {}  # of the last answer, where the server tells them

    @property
    def system(self) -> str:
        """The system message; "" for none."""
        first = self.messages[:1]
        return first[0]["content"] if first and first[0]["role"] == "system" else ""

    @system.setter
    def system(self, text: str) -> None:
        del self.messages[: 1 if self.system else 0]
        if text:
            self.messages.insert(0, {"role": "system", "content": text})

    def take_back(self) -> str | None:
        """Takes the last exchange back; returns its question, None where there is none."""
        first = 1 if self.system else 0
        if len(self.messages) < first + 2:
            return None
        question, _ = self.messages[-2:]
        del self.messages[-2:]
        return question["content"]

    def ask(self, text: str) -> Iterator[Piece]:
        """Sends the next message; yields the answer as it comes. Both stay in the conversation once
        anything has come, also where the user interrupts, and where it ended in thoughts."""
        question = {"role": "user", "content": text}
        body = {**self.fields, "messages": [*self.messages, question], "stream": True}
        answer = {"role": "assistant", "content": ""}
        has_begun = self.is_cut_off = False
        self.timings = {}
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
        with self.server.request("POST", "/v1/chat/completions", body, TIMEOUT_S) as response:
            yield from self._pieces(response)

    def _pieces(self, response: http.client.HTTPResponse) -> Iterator[Piece]:
        """Yields what a stream of server-sent events brings. Raises DllamaError with the server's
        words."""
        if response.status != 200:
            raise DllamaError(refusal(response.read(), response.status))
        kind = response.headers.get_content_type()
        if kind != "text/event-stream":
            raise DllamaError(
                f"what answers at {self.server} is no OpenAI-compatible server: it sends "
                f"{kind} where a stream of events was asked for; name another with --url"
            )
        for line in response:
            if not line.startswith(b"data: ") or line.strip() == b"data: [DONE]":
                continue
            event = json.loads(line[6:])
            if "error" in event:
                raise DllamaError(str(event["error"].get("message", event["error"])))
            self.timings = event.get("timings") or self.timings
            for choice in event.get("choices") or ():
                self.is_cut_off |= choice.get("finish_reason") == "length"
                yield from _pieces_of(choice.get("delta") or {})


def _pieces_of(delta: Mapping[str, str | None]) -> Iterator[Piece]:
    thought = next((delta[name] for name in THOUGHTS if delta.get(name)), None)
    if thought:
        yield Piece(thought, is_thought=True)
    if text := delta.get("content"):
        yield Piece(text)
