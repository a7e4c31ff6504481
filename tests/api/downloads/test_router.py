"""A server of many models downloads some while it serves: they are in its list as soon as they are
whole, and gone as soon as they are removed."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path

import orjson
import pytest

from api.downloads.service import DownloadService
from api.models.entry import ModelEntry
from dllama.hub.downloads import Downloads
from dllama.hub.found import models_here
from dllama.hub.names import without_hub
from dllama.hub.settings import HubSettings
from tests.api.models.scripted_source import ScriptedSource
from tests.api.serving import Server, run, serving_models
from tests.dllama.hub.pulling import settings_of
from tests.hub_server import HubServer, Trouble, hub_server
from tests.leaks import no_leaks  # noqa: F401  (a fixture)

NAME = "user/toy:Q4_0"
FILE = "toy-Q4_0.gguf"
DATA = hashlib.sha256(b"toy").digest() * 4000


class PulledSource(ScriptedSource):
    """A model of the start, and all that were pulled."""

    def __init__(self, settings: HubSettings) -> None:
        super().__init__("first")
        self._settings = settings

    def entries(self) -> Iterable[ModelEntry]:
        pulled = models_here(self._settings)
        return [
            *super().entries(),
            *(ModelEntry(without_hub(model.name), (model.name,)) for model in pulled),
        ]


@pytest.fixture
def hub() -> Iterator[HubServer]:
    with hub_server() as server:
        server.repos["user/toy"] = {FILE: DATA}
        yield server


async def names(server: Server) -> list[str]:
    return [row["id"] for row in (await server.get("/models")).json["data"]]


@pytest.mark.usefixtures("no_leaks")
def test_a_model_is_downloaded_served_and_removed(hub: HubServer, tmp_path: Path) -> None:
    settings = settings_of(hub, tmp_path)
    hub.pace_s = 0.02

    async def body() -> None:
        pool = PulledSource(settings).pool(1)
        service = DownloadService(lambda: Downloads(settings), pool)
        async with serving_models(pool, downloads=service) as server, asyncio.timeout(60):
            async with server.session.get(server.url + "/models/sse") as sse:
                reply = await server.post("/models", {"model": "user/toy:Q4_0"})
                assert reply.json == {"success": True}
                told: list[dict] = []
                async for row in sse.content:
                    if row.startswith(b"data: "):
                        told.append(orjson.loads(row[6:]))
                        if told[-1]["event"].startswith(("download_f", "download_e")):
                            break
            own = [event for event in told if event["model"] == NAME]
            assert own[0]["event"] == "download_progress"
            assert own[-1]["event"] == "download_finished"
            [(url, progress)] = own[-1]["data"]["progress"].items()
            assert url.endswith(FILE) and progress == {"done": len(DATA), "total": len(DATA)}
            assert await names(server) == ["first", NAME]
            for name in (NAME, f"hf.co/{NAME}", "user/toy", "USER/toy:q4_0", "user/toy:latest"):
                answer = await server.chat(model=name)
                assert answer.json["choices"][0]["message"]["content"] == f"I am {NAME}", name
            tags = (await server.get("/api/tags")).json["models"]
            assert [row["name"] for row in tags] == ["first:latest", f"hf.co/{NAME}"]
            again = await server.post("/models", {"model": NAME})
            assert again.status == 400 and "here already" in again.error["message"]
            assert (await server.request("DELETE", f"/models?model={NAME}")).status == 200
            assert await names(server) == ["first"] and list(tmp_path.iterdir()) == []
            assert (await server.request("DELETE", f"/models?model={NAME}")).status == 404
            assert (await server.request("DELETE", "/models")).status == 400

    run(body)


def test_a_download_that_fails_or_is_stopped_leaves_the_list_as_it_was(
    hub: HubServer, tmp_path: Path
) -> None:
    settings = settings_of(hub, tmp_path)

    async def body() -> None:
        pool = PulledSource(settings).pool(1)
        service = DownloadService(lambda: Downloads(settings), pool)
        async with serving_models(pool, downloads=service) as server, asyncio.timeout(60):
            with pool.events.listen() as listener:
                for trouble, reason in ((Trouble(status=404), "not there"), (None, "stopped")):
                    hub.always[FILE] = trouble or Trouble()
                    hub.pace_s = 0.05
                    assert (await server.post("/models", {"model": NAME})).status == 200
                    if trouble is None:
                        reply = await server.post("/models/unload", {"model": NAME})
                        assert reply.json == {"success": True}
                    while (event := await listener.next(60)) is not None:
                        if event["event"] == "download_failed":
                            break
                    assert event is not None and reason in str(event["data"])
            assert await names(server) == ["first"]
            assert (await server.post("/models/unload", {"model": NAME})).status == 404

    run(body)
