"""Any request to any route: never a 500, never a hang, nothing left behind. The same with a real
engine, and as many requests as one likes: `python -m benchmarks.fuzz_api`."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator

import aiohttp
import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from yarl import URL

from benchmarks.fuzz_bodies import Request, requests
from tests.api.serving import Server, masks, says, serving_engine
from tests.scripted_runner import ScriptedEngine

STATUSES = {200, 204, 400, 404, 405, 501, 503}


@pytest.fixture(scope="module")
def send() -> Iterator[Callable[[Request], None]]:
    """Sends to one server that lives through all the examples, and then looks what is left."""
    loop = asyncio.new_event_loop()
    engine = ScriptedEngine(says('{"a": 1} ☕'), constraints=masks())
    context = serving_engine(engine)
    server: Server = loop.run_until_complete(context.__aenter__())
    statuses: Counter[int] = Counter()

    async def one(request: Request) -> None:
        url = URL(server.url + request.path, encoded=True)
        timeout = aiohttp.ClientTimeout(total=20)
        async with server.session.request(
            request.method,
            url,
            data=request.data or None,
            timeout=timeout,
            headers=request.headers,
        ) as response:
            if request.leaves:
                response.close()
                return
            data = await response.read()
        statuses[response.status] += 1
        assert response.status in STATUSES, (request, data)
        assert b"did not expect" not in data, (request, data)
        if response.content_type == "application/json" and request.method != "HEAD":
            orjson.loads(data)

    yield lambda request: loop.run_until_complete(one(request))
    assert statuses[200] and statuses[400], "the requests are not what they should be"

    async def settle() -> None:
        async with asyncio.timeout(20):
            while engine.running:
                await asyncio.sleep(0.01)
        reply = (await server.get("/stats")).json
        assert reply["api"]["open_requests"] == 0
        slots = (await server.get("/slots")).json
        assert not any(slot["is_processing"] for slot in slots)

    loop.run_until_complete(settle())
    assert len(asyncio.all_tasks(loop)) <= 1  # a connection that is kept alive
    loop.run_until_complete(context.__aexit__(None, None, None))
    loop.run_until_complete(loop.shutdown_default_executor())
    loop.close()


@settings(max_examples=150, suppress_health_check=list(HealthCheck))
@given(request_=requests())
def test_any_request_to_any_route(send, request_: Request) -> None:
    send(request_)
