"""Sends random requests to every route of a real server: no 500, no hang, nothing left behind.

    python -m benchmarks.fuzz_api --requests 10000
    python -m benchmarks.fuzz_api --requests 1000 --model other.gguf

The server runs in this process, on loopback, around the model of the package. It needs the test
extra (hypothesis). Ends with 1 and a sentence where something is wrong.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import logging
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import orjson
import psutil
from aiohttp import web
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from yarl import URL

from api.app import build_app
from api.config import ApiConfig
from api.engines.in_process import InProcessEngineClient
from api.http.serve import make_runner
from api.models.fixed import FixedModels
from benchmarks.fuzz_bodies import Request, requests
from dllama.cli.build import build_engine
from dllama.cli.flags.arguments import DEFAULT_MODEL
from dllama.cli.flags.settings import EngineSettings, ServerSettings
from dllama.cli.server.model_facts import served_model
from dllama.engine.engine import Engine

AT_ONCE = 4  # requests of one example
TIMEOUT_S = 30.0  # a request that takes longer hangs
TOLD_EVERY = 1000  # answers
CONTEXT = 256  # tokens: answers without a limit end soon
SETTLE_S = 20.0  # after which nothing may be left of the last requests
STATUSES = frozenset({200, 204, 400, 403, 404, 405, 408, 413, 501, 503})


@dataclass(frozen=True, slots=True)
class Holdings:
    """The resources that a server holds without requests."""

    files: int
    threads: int
    tasks: int
    pages: int
    sequences: int


class Fuzz:
    """A server around an engine, and a client, on one event loop."""

    def __init__(self, engine: Engine, settings: EngineSettings) -> None:
        self.loop = asyncio.new_event_loop()
        self.statuses: Counter[int] = Counter()
        self.left = 0
        self._engine = engine
        client = InProcessEngineClient(engine)
        served = served_model(settings, ServerSettings(), client)  # type: ignore[arg-type]
        app = build_app(FixedModels([served]), ApiConfig(headers_after_s=0.05))
        self._runner = make_runner(app)
        self._app = app

    def start(self) -> None:
        self.loop.run_until_complete(self._start())

    async def _start(self) -> None:
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self._url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"

    def send(self, several: Sequence[Request]) -> None:
        """Sends requests at once. Raises AssertionError for an answer that no server should
        give."""
        self.loop.run_until_complete(self._send(several))

    async def _send(self, several: Sequence[Request]) -> None:
        timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
        async with aiohttp.ClientSession(timeout=timeout) as session:
            await asyncio.gather(*(self._one(session, request) for request in several))

    async def _one(self, session: aiohttp.ClientSession, request: Request) -> None:
        url = URL(self._url + request.path, encoded=True)
        async with session.request(
            request.method, url, data=request.data or None, headers=request.headers
        ) as response:
            if request.leaves:
                self.left += 1
                response.close()
                return
            data = await response.read()
        self.statuses[response.status] += 1
        if (n := sum(self.statuses.values())) % TOLD_EVERY == 0:
            print(f"{n} answers", file=sys.stderr)
        assert response.status in STATUSES, (request, response.status, data)
        if b"internal_error" in data or b"met an error that it did not expect" in data:
            raise AssertionError(f"an unforeseen error: {request} {data!r}")
        if response.content_type == "application/json" and request.method != "HEAD":
            orjson.loads(data)

    def holdings(self) -> Holdings:
        """Returns the resources once they no longer change, or after SETTLE_S."""
        until_s = time.monotonic() + SETTLE_S
        found = self._holdings()
        while time.monotonic() < until_s and (found.pages or found.sequences):
            self.loop.run_until_complete(asyncio.sleep(0.05))
            found = self._holdings()
        self.loop.run_until_complete(asyncio.sleep(0.2))
        return self._holdings()

    def _holdings(self) -> Holdings:
        gc.collect()
        process = psutil.Process()
        stats = self.loop.run_until_complete(self._stats())
        kv, sequences = stats["kv"], stats["sequences"]
        assert isinstance(kv, dict) and isinstance(sequences, dict)
        return Holdings(
            files=process.num_fds(),
            threads=process.num_threads(),
            tasks=len(asyncio.all_tasks(self.loop)),
            pages=kv["pages_used"],
            sequences=sequences["waiting"] + sequences["running"],
        )

    async def _stats(self) -> dict[str, object]:
        async with aiohttp.ClientSession() as session, session.get(self._url + "/stats") as reply:
            found: dict[str, object] = orjson.loads(await reply.read())
            return found

    def close(self) -> None:
        self.loop.run_until_complete(self._runner.cleanup())
        self.loop.run_until_complete(self.loop.shutdown_default_executor())
        self.loop.close()
        self._engine.close()


def fuzz(model: str, n_requests: int) -> tuple[Fuzz, Holdings, Holdings]:
    """Sends `n_requests` requests; returns the fuzz, closed, and the holdings before and after."""
    chosen = EngineSettings(model=model, threads=1, ctx_size=CONTEXT, kv_tokens=CONTEXT * 8)
    running = Fuzz(build_engine(chosen, lambda share, text: None, with_grammars=True), chosen)
    running.start()

    @settings(
        max_examples=max(1, n_requests // AT_ONCE), deadline=None, database=None,
        phases=[Phase.generate], suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(several=st.lists(requests(), min_size=AT_ONCE, max_size=AT_ONCE))
    def send(several: list[Request]) -> None:
        running.send(several)

    try:
        warm = [Request("POST", "/v1/completions", b'{"prompt": "a", "max_tokens": 2}')] * 8
        running.send(warm)
        running.send([Request("POST", "/v1/embeddings", b'{"input": "a"}')])
        before = running.holdings()
        send()
        after = running.holdings()
    finally:
        running.close()
    return running, before, after


def leaks(before: Holdings, after: Holdings) -> list[str]:
    """Returns the leaks in words; threads of the pool for long texts may be new."""
    found = []
    for name, allowed in (("files", 4), ("threads", 40), ("tasks", 0)):
        more = getattr(after, name) - getattr(before, name)
        if more > allowed:
            found.append(f"{more} more {name}")
    if after.pages or after.sequences:
        found.append(f"{after.pages} pages and {after.sequences} sequences are not freed")
    return found


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--requests", type=int, default=10_000, metavar="N")
    parser.add_argument("--model", default=str(DEFAULT_MODEL), metavar="FILE")
    args = parser.parse_args(argv)
    logging.basicConfig(level=logging.ERROR)  # refusals are what is asked for
    started_s = time.monotonic()
    done, before, after = fuzz(str(Path(args.model)), args.requests)
    seconds = time.monotonic() - started_s
    n_answers = sum(done.statuses.values())
    print(f"{n_answers} answers and {done.left} clients that left, in {seconds:.0f} s")
    print("statuses: " + ", ".join(f"{n} x {s}" for s, n in sorted(done.statuses.items())))
    print(f"before: {before}\nafter:  {after}")
    found = leaks(before, after)
    if found:
        print("left behind: " + "; ".join(found))
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
