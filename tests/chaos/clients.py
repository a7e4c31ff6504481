"""Clients that read a whole answer: the openai package, and readers of events that take every
byte seriously."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import aiohttp
import httpx
import openai

from tests.chaos.answers import Answer, errors_in
from tests.chaos.cases import Case

SILENCE_S = 200.0  # more than the time that a cluster has to recover: then an answer is lost
BASE = "http://dllama"
Take = Callable[[object], None]


class Lost(Exception):
    """An answer that did not come whole, and why."""


class Clients:
    """One of each kind, over one unix socket; used as an asynchronous context."""

    def __init__(self, socket: Path) -> None:
        self._socket = socket

    async def __aenter__(self) -> Clients:
        path = str(self._socket)
        self._plain = aiohttp.ClientSession(
            connector=aiohttp.UnixConnector(path, limit=0),
            timeout=aiohttp.ClientTimeout(total=None, sock_read=SILENCE_S),
            read_bufsize=1 << 20,
        )
        transport = httpx.AsyncHTTPTransport(uds=path, retries=0)
        self._openai = openai.AsyncOpenAI(
            base_url=f"{BASE}/v1",
            api_key="none",
            max_retries=0,
            timeout=SILENCE_S,
            http_client=httpx.AsyncClient(transport=transport),  # type: ignore[arg-type]
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._openai.close()
        await self._plain.close()

    async def ask(self, case: Case, on_piece: Callable[[], None] = lambda: None) -> Answer:
        """Returns the answer to a case; on_piece is called for each piece of it. Raises Lost."""
        answer = Answer()

        def take(piece: object) -> None:
            for error in errors_in(piece):
                raise Lost(f"an error in the stream: {error}")
            answer.add(piece)
            on_piece()

        try:
            if case.client == "openai":
                await self._ask_openai(case, take)
            else:
                await self._ask_plain(case, take)
        except (openai.OpenAIError, aiohttp.ClientError, OSError, ValueError) as error:
            raise Lost(f"{type(error).__name__}: {error}") from error
        return answer

    async def _ask_openai(self, case: Case, take: Take) -> None:
        create = self._openai.chat.completions.create
        body = {"model": "any", "stream_options": {"include_usage": True}, **case.body}
        stream = await create(stream=True, **body)  # type: ignore[call-overload]
        async for chunk in stream:
            take(chunk.model_dump(mode="json", exclude_unset=True))

    async def _ask_plain(self, case: Case, take: Take) -> None:
        body = dict(case.body)
        if case.client != "whole":
            body["stream"] = True
        if case.path == "/v1/chat/completions":
            body["stream_options"] = {"include_usage": True}
        async with self._plain.post(BASE + case.path, json=body) as reply:
            if reply.status != 200:
                raise Lost(f"status {reply.status}: {(await reply.text())[:300]}")
            if case.client == "whole":
                take(await reply.json())
                return
            last: object = None
            async for line in reply.content:
                data = _data_of(line, case)
                if data is not None:
                    last = data if data == "[DONE]" else json.loads(data)
                    if data != "[DONE]":
                        take(last)
        take({"end": last if isinstance(last, str) else _end_of(last)})


def _data_of(line: bytes, case: Case) -> str | None:
    """Returns what a line of a stream carries; None for comments, names of events and blanks."""
    text = line.decode().strip()
    if case.client == "lines":
        return text or None
    return text.removeprefix("data:").strip() if text.startswith("data:") else None


def _end_of(event: object) -> str:
    """Returns how the last event of a stream says that it is the last."""
    if not isinstance(event, dict):
        return "nothing"
    return str(event.get("type") or ("stop" if event.get("stop") or event.get("done") else "cut"))
