"""Streaming clients of a server under load, and the three scenarios they play.

Everything is asked with `ignore_eos` and `max_tokens`, so that lengths are fixed. A client notes
when bytes came and reads their JSON afterwards: it must not take the processor that it measures.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import count

import aiohttp
import orjson

from benchmarks.load.figures import Json, Stream, intrusion_row, load_row, turn_row
from benchmarks.load.server import LoadError

REQUEST_S = 600.0  # no answer takes longer
POLL_S = 0.02
TURNS = 20
WORDS = ("one", "of", "the", "old", "stone", "rivers", "that", "run", "north", "and", "east")


@dataclass(frozen=True, slots=True)
class Load:
    """The load of a scenario: `clients` at once, each with a prompt of `n_prompt` random tokens
    below `vocab_size` and an answer of `n_tokens`. Without a temperature the server's own is
    used."""

    clients: int
    n_prompt: int
    n_tokens: int
    vocab_size: int
    temperature: float | None = None

    def body(self, seed: int, n_prompt: int | None = None, n_tokens: int | None = None) -> Json:
        """A body of /v1/completions; equal seeds give equal ones."""
        rng = random.Random(seed)
        ids = range(self.vocab_size // 4, self.vocab_size // 2)  # plain words in any vocabulary
        body: Json = {
            "prompt": rng.choices(ids, k=n_prompt or self.n_prompt),
            "max_tokens": n_tokens or self.n_tokens,
            "seed": seed,
        }
        return body if self.temperature is None else {**body, "temperature": self.temperature}


class Clients:
    """Connections to one server, without a limit on their number."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self._session = session
        self._url = url

    async def stream(self, path: str, body: Json, stream: Stream | None = None) -> Stream:
        """Asks and reads to the end; what has come is in `stream` even if this is cancelled.
        Raises LoadError where the server refuses or breaks off."""
        more = {"stream": True, "ignore_eos": True, "stream_options": {"include_usage": True}}
        data = orjson.dumps({**body, **more})
        stream = stream or Stream()
        stream.sent_s = time.perf_counter()
        pieces: list[bytes] = []
        stamps: list[float] = []  # one for each end of an event
        last = b""
        try:
            async with self._session.post(self._url + path, data=data) as response:
                if response.status != 200:
                    said = (await response.read())[:500]
                    raise LoadError(f"{path} was answered {response.status}: {said!r}")
                async for piece in response.content.iter_any():
                    n_ends = (last + piece).count(b"\n\n")
                    stamps += [time.perf_counter()] * n_ends
                    stream.n_events += n_ends
                    pieces.append(piece)
                    last = piece[-1:]
        except aiohttp.ClientError as error:
            raise LoadError(f"the connection for {path} broke off: {error!r}") from error
        finally:
            read_events(stream, b"".join(pieces), stamps)
        return stream

    async def post(self, path: str, body: Json) -> Json:
        """The JSON that a request is answered with. Raises LoadError."""
        async with self._session.post(self._url + path, data=orjson.dumps(body)) as response:
            data = await response.read()
            if response.status != 200:
                raise LoadError(f"{path} was answered {response.status}: {data[:500]!r}")
            told: Json = orjson.loads(data)
            return told


@asynccontextmanager
async def clients_of(url: str) -> AsyncIterator[Clients]:
    timeout = aiohttp.ClientTimeout(total=REQUEST_S)
    headers = {"Content-Type": "application/json"}
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(
        timeout=timeout, headers=headers, connector=connector
    ) as session:
        yield Clients(session, url)


def read_events(stream: Stream, data: bytes, stamps: Sequence[float]) -> None:
    """Fills a stream from all bytes that came, and the time of each end of an event."""
    texts: list[str] = []
    for event, stamp in zip(data.split(b"\n\n"), stamps, strict=False):
        if not event.startswith(b"data: ") or event == b"data: [DONE]":
            continue  # a comment
        told = orjson.loads(event[6:])
        if "error" in told:
            raise LoadError(f"a stream broke off: {told['error']}")
        if usage := told.get("usage"):
            stream.n_prompt, stream.n_tokens = usage["prompt_tokens"], usage["completion_tokens"]
            stream.n_cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens")
        for choice in told.get("choices", ()):
            text = choice.get("text") or (choice.get("delta") or {}).get("content")
            if text:
                texts.append(text)
                stream.stamps.append(stamp)
    stream.text = "".join(texts)


async def play_load(clients: Clients, load: Load, seed: int) -> Json:
    """All clients at once, to the end of their answers."""
    asked = (clients.stream("/v1/completions", load.body(seed + i)) for i in range(load.clients))
    streams = await asyncio.gather(*asked)
    for stream in streams:
        if len(stream.stamps) < 2:
            raise LoadError("a stream brought less than two pieces of text; ask for more tokens")
    row = load_row(streams)
    if not row["decode_tokens_per_s"]:
        raise LoadError(
            f"the first answer of {load.n_tokens} tokens ended before the last had begun; ask for "
            "more tokens"
        )
    return row


async def play_intrusion(clients: Clients, load: Load, n_long: int, seed: int, room: int) -> Json:
    """The clients stream, and when each has its `n_tokens` a prompt of `n_long` tokens is sent;
    they go on until that one has its first token. `room` is how many tokens an answer may have;
    whose answer ends before asks for another one, and the pause between the two is no interval."""
    answers: list[list[Stream]] = [[] for _ in range(load.clients)]

    async def keep_asking(i: int) -> None:
        for turn in count():
            answers[i].append(Stream())
            body = load.body(seed + i + turn * (load.clients + 1), n_tokens=room)
            await clients.stream("/v1/completions", body, answers[i][-1])

    tasks = [asyncio.create_task(keep_asking(i)) for i in range(load.clients)]
    try:
        while min(sum(s.n_events for s in mine) for mine in answers) < load.n_tokens:
            raise_failures(tasks)
            await asyncio.sleep(POLL_S)
        body = load.body(seed + load.clients, n_prompt=n_long, n_tokens=2)
        long = await clients.stream("/v1/completions", body)
        raise_failures(tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    if not long.stamps or not all(mine[0].stamps for mine in answers):
        raise LoadError("a stream brought no text while the long prompt was computed")
    return intrusion_row(answers, long)


def raise_failures(tasks: Sequence[asyncio.Task[None]]) -> None:
    """Raises the error of a client that has ended too early."""
    for task in tasks:
        if task.done():
            task.result()


async def play_turn(clients: Clients, load: Load, n_chat: int, repeats: int) -> Json:
    """A chat of some `n_chat` tokens, turn by turn, whose last turn is asked with and without
    reuse, `repeats` times with other last words.

    The assistant's messages are given, not its real answers: random weights make tokens that no
    text is tokenized to, and no cache could find those again. It is read once as the beginning of
    an answer, and so is in the cache as an answer would be.
    """
    n_words = max(2, n_chat // (2 * TURNS - 1) - await n_dressing(clients))
    messages: list[Json] = []
    for turn in range(TURNS - 1):
        messages.append({"role": "user", "content": await words_of(clients, n_words, turn)})
        await clients.stream("/v1/chat/completions", chat_body(messages, 2))
        answer = await words_of(clients, n_words, TURNS + turn)
        messages.append({"role": "assistant", "content": answer})
        await clients.stream("/v1/chat/completions", chat_body(messages, 2))
    reused, computed = [], []
    for repeat in range(repeats):
        last: Json = {
            "role": "user",
            "content": await words_of(clients, n_words, 2 * TURNS + repeat),
        }
        body = chat_body([*messages, last], min(16, load.n_tokens))
        reused.append(await clients.stream("/v1/chat/completions", body))
        computed.append(
            await clients.stream("/v1/chat/completions", {**body, "cache_prompt": False})
        )
    if not all(s.stamps for s in [*reused, *computed]):
        raise LoadError("the last turn of the chat was answered without any text")
    return turn_row(reused, computed)


def chat_body(messages: Sequence[Json], n_tokens: int) -> Json:
    return {"messages": list(messages), "max_tokens": n_tokens, "temperature": 0}


async def n_dressing(clients: Clients) -> int:
    """Tokens that the chat template puts around a message."""
    chat: list[Json] = [{"role": role, "content": "a"} for role in ("user", "assistant", "user")]
    told = [
        await clients.stream("/v1/chat/completions", chat_body(messages, 1))
        for messages in (chat[:1], chat)
    ]
    return (told[1].n_prompt - told[0].n_prompt) // 2


async def words_of(clients: Clients, n_tokens: int, seed: int) -> str:
    """Some `n_tokens` of words; other ones for each seed."""
    words = random.Random(seed).choices(WORDS, k=n_tokens)
    told = await clients.post("/tokenize", {"content": " ".join(words)})
    found = told["tokens"]
    assert isinstance(found, list)
    return " ".join(words[: max(1, round(n_tokens * n_tokens / max(len(found), 1)))])
