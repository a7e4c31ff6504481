"""A real server on loopback around an engine that follows a script, for the tests of the routes."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import cache

import aiohttp
import orjson
from aiohttp import web

from api.app import build_app
from api.config import AnswerDefaults, ApiConfig
from api.downloads.service import DownloadService
from api.engines.client import EngineClient
from api.engines.in_process import InProcessEngineClient
from api.http.serve import make_runner
from api.models.fixed import FixedModels
from api.models.models import Models
from api.served_model import ServedModel
from api.sleep import IdleSleep
from benchmarks.writers.filler_vocabulary import CHATML, bpe_metadata
from dllama.chat.chat_template import ChatTemplate
from dllama.constraints.masks import GrammarMasks
from dllama.constraints.vocabulary_bytes import VocabularyBytes
from dllama.requests import Output, Submit
from dllama.tokenizer.tokenizer import Tokenizer
from tests.scripted_runner import Script, ScriptedEngine

ClientClass = Callable[[ScriptedEngine], EngineClient]

VOCAB_SIZE = 352  # the default of ScriptedEngine
MAX_SEQ_LEN = 256
CREATED = 1_700_000_000


@cache
def tokenizer() -> Tokenizer:
    """Byte-level BPE with the ChatML specials; BOS is <|begin_of_text|>."""
    return Tokenizer.from_gguf_metadata(bpe_metadata(VOCAB_SIZE))


@cache
def chatml() -> ChatTemplate:
    """ChatML, which refuses on request."""
    source = "{% if refuse %}{{ raise_exception('it was told to') }}{% endif %}" + CHATML
    return ChatTemplate(source)


@cache
def masks() -> GrammarMasks:
    """What an engine needs to follow grammars. Never closed: its threads end with the process."""
    return GrammarMasks(VocabularyBytes.of(tokenizer()), VOCAB_SIZE)


def says(text: str, *, ends: bool = True) -> Script:
    """The script of an answer: a text, and the end of the turn."""
    ids = tokenizer().encode(text)
    eos_id = tokenizer().eos_id
    assert eos_id is not None
    return lambda submit: [*ids, *([eos_id] if ends else [])]


class StepwiseClient(InProcessEngineClient):
    """Allows the engine a step when the next Output is asked for, so that no two Outputs are
    merged, however slow the reader is. For one sequence at a time."""

    def __init__(self, engine: ScriptedEngine) -> None:
        super().__init__(engine)
        self._gate = engine.gate = threading.Semaphore(0)

    async def submit(self, submit: Submit) -> AsyncIterator[Output]:
        outputs = super().submit(submit)
        while True:
            self._gate.release()
            try:
                output = await anext(outputs)
            except StopAsyncIteration:
                return
            yield output


class ImpatientClient(InProcessEngineClient):
    """Has sequences end as soon as a node is lost."""

    def __init__(self, engine: ScriptedEngine) -> None:
        super().__init__(engine, max_recover_s=0.0)


def served(
    engine: EngineClient,
    name: str = "toy",
    aliases: tuple[str, ...] = (),
    defaults: AnswerDefaults | None = None,
) -> ServedModel:
    return ServedModel(
        id=name,
        tokenizer=tokenizer(),
        chat_template=chatml(),
        engine=engine,
        max_seq_len=MAX_SEQ_LEN,
        created=CREATED,
        stop_ids=tuple(sorted(tokenizer().eog_ids)),
        aliases=aliases,
        defaults=defaults or AnswerDefaults(),
    )


ROOM = 32_768  # tokens of a context that holds whole conversations with tools


def roomy_engine(text: str) -> ScriptedEngine:
    """An engine that says `text`, follows grammars, and has a context of ROOM tokens."""
    return ScriptedEngine(says(text), constraints=masks(), max_len=ROOM)


def roomy_model(engine: ScriptedEngine) -> ServedModel:
    """The model of a roomy engine."""
    return replace(served(InProcessEngineClient(engine)), max_seq_len=ROOM)


@dataclass(frozen=True)
class Reply:
    status: int
    headers: Mapping[str, str]
    data: bytes

    @property
    def json(self) -> dict:
        return orjson.loads(self.data)

    @property
    def error(self) -> dict:
        assert set(self.json["error"]) >= {"message", "type", "param", "code"}
        return self.json["error"]

    @property
    def events(self) -> list[dict]:
        """The events of a stream that ended well."""
        events = self.lines
        assert events[-1] == b"[DONE]"
        return [orjson.loads(event) for event in events[:-1]]

    @property
    def lines(self) -> list[bytes]:
        """The data of each event, comments left out."""
        assert self.data.endswith(b"\n\n")
        blocks = [b for b in self.data.split(b"\n\n") if b and b != b":"]
        assert all(b.startswith(b"data: ") and b"\n" not in b for b in blocks)
        return [b.removeprefix(b"data: ") for b in blocks]


@dataclass
class Server:
    url: str
    session: aiohttp.ClientSession
    app: web.Application
    runner: web.AppRunner

    async def request(self, method: str, path: str, **more: object) -> Reply:
        async with self.session.request(method, self.url + path, **more) as response:  # type: ignore[arg-type]
            return Reply(response.status, response.headers, await response.read())

    async def get(self, path: str, **more: object) -> Reply:
        return await self.request("GET", path, **more)

    async def post(self, path: str, body: object, **more: object) -> Reply:
        return await self.request("POST", path, data=orjson.dumps(body), **more)

    async def chat(self, **body: object) -> Reply:
        messages = [{"role": "user", "content": "Hi"}]
        return await self.post("/v1/chat/completions", {"messages": messages, **body})

    async def complete(self, prompt: object = "Once", **body: object) -> Reply:
        return await self.post("/v1/completions", {"prompt": prompt, **body})


@asynccontextmanager
async def serving(
    *models: ServedModel, config: ApiConfig | None = None, sleep: IdleSleep | None = None
) -> AsyncIterator[Server]:
    async with serving_models(FixedModels(models, sleep), config) as server:
        yield server


@asynccontextmanager
async def serving_models(
    models: Models, config: ApiConfig | None = None, downloads: DownloadService | None = None
) -> AsyncIterator[Server]:
    async with serving_app(build_app(models, config or ApiConfig(), downloads)) as server:
        yield server


@asynccontextmanager
async def serving_app(app: web.Application) -> AsyncIterator[Server]:
    runner = make_runner(app)
    await runner.setup()
    listener = socket.create_server(("127.0.0.1", 0))
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16384)  # so that little fills it
    await web.SockSite(runner, listener).start()
    host, port = runner.addresses[0][:2]
    try:
        async with aiohttp.ClientSession() as session:
            yield Server(f"http://{host}:{port}", session, app, runner)
    finally:
        await runner.cleanup()


@asynccontextmanager
async def serving_engine(
    engine: ScriptedEngine,
    config: ApiConfig | None = None,
    client: ClientClass = InProcessEngineClient,
    defaults: AnswerDefaults | None = None,
) -> AsyncIterator[Server]:
    async with serving(served(client(engine), defaults=defaults), config=config) as server:
        yield server


def run(body: Callable[[], Awaitable[None]], limit_s: float = 60) -> None:
    """Runs a test's coroutine, which may never hang."""

    async def limited() -> None:
        async with asyncio.timeout(limit_s):
            await body()

    asyncio.run(limited())


def ask(
    engine: ScriptedEngine,
    call: Callable[[Server], Awaitable[Reply]],
    client: ClientClass = InProcessEngineClient,
    defaults: AnswerDefaults | None = None,
    **config: object,
) -> Reply:
    """The reply to one request, of a server made for it."""
    replies: list[Reply] = []

    async def body() -> None:
        settings = ApiConfig(**config)  # type: ignore[arg-type]
        async with serving_engine(engine, settings, client, defaults) as server:
            replies.append(await call(server))

    run(body)
    return replies[0]


async def until(condition: Callable[[], bool]) -> None:
    """Waits for what another thread is about to do."""
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.002)
