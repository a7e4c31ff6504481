"""A server in a thread of its own, for clients that know nothing of asyncio."""

from __future__ import annotations

import asyncio
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from api.app import build_app
from api.config import ApiConfig
from api.engines.in_process import InProcessEngineClient
from api.http.serve import serve
from api.models.fixed import FixedModels
from api.models.models import Models
from api.served_model import ServedModel
from tests.api.serving import ClientClass, served
from tests.scripted_runner import ScriptedEngine


@contextmanager
def listening(
    engine: ScriptedEngine,
    config: ApiConfig | None = None,
    client: ClientClass = InProcessEngineClient,
    tls: ssl.SSLContext | None = None,
) -> Iterator[str]:
    """Yields the URL of a server of the model "toy"; the server stops at the end."""
    with listening_model(served(client(engine), "toy"), config, tls) as url:
        yield url


@contextmanager
def listening_model(
    model: ServedModel, config: ApiConfig | None = None, tls: ssl.SSLContext | None = None
) -> Iterator[str]:
    """Yields the URL; the server stops at the end."""
    with listening_models(lambda: FixedModels([model]), config, tls) as url:
        yield url


@contextmanager
def listening_models(
    make: Callable[[], Models],
    config: ApiConfig | None = None,
    tls: ssl.SSLContext | None = None,
) -> Iterator[str]:
    """Yields the URL of a server of the models that `make` makes on its loop."""
    urls: list[str] = []
    is_up = threading.Event()
    ends: list[Callable[[], object]] = []

    def up(where: str) -> None:
        urls.append(where)
        is_up.set()

    async def main() -> None:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        ends.append(lambda: loop.call_soon_threadsafe(stop.set))
        app = build_app(make(), config or ApiConfig())
        await serve(app, ["127.0.0.1"], 0, tls=tls, stop=stop, on_ready=up)

    thread = threading.Thread(target=lambda: asyncio.run(main()), daemon=True)
    thread.start()
    assert is_up.wait(20)
    try:
        yield urls[0]
    finally:
        ends[0]()
        thread.join(20)
        assert not thread.is_alive()
