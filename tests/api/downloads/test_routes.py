"""Downloads over HTTP: cortex's routes and events, Ollama's, with a hub on loopback."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import orjson
import pytest

from api.config import ApiConfig
from api.downloads.service import DownloadService
from api.engines.in_process import InProcessEngineClient
from api.models.fixed import FixedModels
from dllama.hub.downloads import Downloads
from tests.api.serving import Server, run, says, served, serving_models
from tests.dllama.hub.pulling import files_in, settings_of, whole_models
from tests.hub_server import HubServer, Trouble, hub_server
from tests.leaks import no_leaks  # noqa: F401  (a fixture)
from tests.scripted_runner import ScriptedEngine

NAME = "hf.co/user/toy:Q4_0"
FILE = "toy-Q4_0.gguf"
DATA = hashlib.sha256(b"toy").digest() * 4000
PATIENCE_S = 60.0


@pytest.fixture
def hub() -> Iterator[HubServer]:
    with hub_server() as server:
        server.repos["user/toy"] = {FILE: DATA}
        server.repos["user/other"] = {FILE: DATA}
        yield server


@asynccontextmanager
async def serving(
    hub: HubServer, folder: Path, config: ApiConfig | None = None, **more: object
) -> AsyncIterator[Server]:
    models = FixedModels([served(InProcessEngineClient(ScriptedEngine(says("hello"))))])
    service = DownloadService(lambda: Downloads(settings_of(hub, folder, **more)))
    async with serving_models(models, config, service) as server, asyncio.timeout(PATIENCE_S):
        yield server


async def sse_events(response: aiohttp.ClientResponse) -> AsyncIterator[dict]:
    async for row in response.content:
        if row.startswith(b"data: "):
            yield orjson.loads(row[6:])


async def until_last(events: AsyncIterator[dict]) -> list[dict]:
    """The events of one download, to its last one."""
    found = []
    async for event in events:
        found.append(event)
        if event["type"] in ("DownloadSuccess", "DownloadStopped", "DownloadError"):
            break
    return found


@pytest.mark.usefixtures("no_leaks")
def test_a_pull_and_its_events_are_those_that_cortexs_clients_know(
    hub: HubServer, tmp_path: Path
) -> None:
    hub.pace_s = 0.02

    async def body() -> None:
        async with serving(hub, tmp_path) as server:
            async with (
                server.session.get(server.url + "/events") as sse,
                server.session.ws_connect(server.url + "/v1/events") as socket,
            ):
                assert sse.content_type == "text/event-stream"
                reply = await server.post("/v1/models/pull", {"model": "user/toy:q4_0"})
                assert reply.status == 200
                assert reply.json["message"] == "Model start downloading!"
                [item] = reply.json["task"]["items"]
                assert set(item) >= {
                    "id", "downloadUrl", "localPath", "checksum", "bytes", "downloadedBytes"
                }  # fmt: skip
                assert reply.json["task"]["id"] == NAME and item["bytes"] == len(DATA)

                async def from_socket() -> AsyncIterator[dict]:
                    async for message in socket:
                        yield orjson.loads(message.data)

                for found in (await until_last(sse_events(sse)), await until_last(from_socket())):
                    assert {"DownloadStarted", "DownloadSuccess"} <= {e["type"] for e in found}
                    last = found[-1]["task"]["items"][0]
                    assert last["downloadedBytes"] == last["bytes"] == len(DATA)
                    assert last["checksum"] == "sha256:" + hashlib.sha256(DATA).hexdigest()
            [task] = (await server.get("/models/pull")).json["data"]
            assert (task["id"], task["status"]) == (NAME, "success")

    run(body)
    assert whole_models(tmp_path) == {f"{NAME} {FILE}": DATA}


@pytest.mark.usefixtures("no_leaks")
def test_a_download_is_stopped_with_an_event_also_one_that_waits(
    hub: HubServer, tmp_path: Path
) -> None:
    hub.pace_s = 0.05

    async def body() -> None:
        async with serving(hub, tmp_path, max_tasks=1) as server:
            for name in ("user/toy", "user/other"):
                assert (await server.post("/models/pull", {"model": name})).status == 200
            async with server.session.get(server.url + "/events") as sse:
                events = sse_events(sse)
                snapshot = [await anext(events), await anext(events)]  # how they stand
                assert {e["type"] for e in snapshot} == {"DownloadUpdated"}
                for told in ({"taskId": "hf.co/user/other:Q4_0"}, {"taskId": "user/toy"}):
                    reply = await server.request(
                        "DELETE", "/v1/models/pull", data=orjson.dumps(told)
                    )
                    assert reply.status == 200
                    assert reply.json["message"] == "Download stopped successfully"
                    last = (await until_last(events))[-1]
                    assert last["type"] == "DownloadStopped"
                    assert last["task"]["id"] == reply.json["taskId"]
            gone = await server.request("DELETE", f"/models/pull?taskId={NAME}")
            assert gone.status == 404 and "Task not found" in gone.error["message"]
            assert (await server.request("DELETE", "/models/pull")).status == 400

    run(body)
    assert whole_models(tmp_path) == {}


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ({}, 400, "`model` is missing"),
        ({"model": ""}, 400, "`model` is missing"),
        ({"model": 7}, 400, "must be a string"),
        ({"model": "../../x"}, 400, "no name of a model"),
        ({"model": "http://169.254.169.254/latest/x.gguf"}, 502, "only https is followed"),
        ({"model": "user/none"}, 404, "is not there"),
        ({"model": "user/toy:Q8_0"}, 404, "it has Q4_0"),
    ],
)
def test_what_cannot_be_pulled_is_told(
    hub: HubServer, tmp_path: Path, body: dict, status: int, words: str
) -> None:
    async def ask() -> None:
        async with serving(hub, tmp_path) as server:
            reply = await server.post("/v1/models/pull", body)
            assert reply.status == status and words in reply.error["message"], reply.json

    run(ask)
    assert list(tmp_path.iterdir()) == []


def test_a_failed_download_tells_its_reason(hub: HubServer, tmp_path: Path) -> None:
    hub.always[FILE] = Trouble(content=bytes(len(DATA)))

    async def body() -> None:
        async with serving(hub, tmp_path) as server:
            async with server.session.get(server.url + "/events") as sse:
                await server.post("/v1/models/pull", {"model": "user/toy"})
                last = (await until_last(sse_events(sse)))[-1]
            assert last["type"] == "DownloadError"
            assert "arrived damaged" in last["task"]["error"]
            reply = await server.post("/api/pull", {"model": "user/toy", "stream": False})
            assert reply.status == 502 and "arrived damaged" in reply.json["error"]

    run(body)


def test_pages_of_strangers_hear_nothing(hub: HubServer, tmp_path: Path) -> None:
    """Browsers let any page open a WebSocket, wherever it is from."""

    async def body() -> None:
        config = ApiConfig(cors_origins=("https://ours.example",), api_keys=("secret",))
        async with serving(hub, tmp_path, config) as server:
            for headers, status in (
                ({}, 401),
                ({"X-Api-Key": "secret", "Origin": "https://theirs.example"}, 403),
            ):
                with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
                    await server.session.ws_connect(server.url + "/events", headers=headers)
                assert refused.value.status == status
            ours = {"X-Api-Key": "secret", "Origin": "https://ours.example"}
            async with server.session.ws_connect(server.url + "/events", headers=ours) as socket:
                await socket.send_str("what clients say is not listened to")
            assert (await server.post("/models/pull", {"model": "user/toy"})).status == 401

    run(body)


@pytest.mark.usefixtures("no_leaks")
def test_ollamas_clients_pull_and_delete(hub: HubServer, tmp_path: Path) -> None:
    digits = hashlib.sha256(DATA).hexdigest()
    hub.pace_s = 0.02

    async def body() -> None:
        async with serving(hub, tmp_path) as server:
            reply = await server.post("/api/pull", {"model": "user/toy"})
            rows = [orjson.loads(row) for row in reply.data.splitlines()]
            assert reply.headers["Content-Type"] == "application/x-ndjson"
            assert rows[0] == {"status": "pulling manifest"}
            whole = {"status": f"pulling {digits[:12]}", "digest": f"sha256:{digits}",
                     "total": len(DATA), "completed": len(DATA)}  # fmt: skip
            assert rows[-4] == whole
            assert [row["status"] for row in rows[-3:]] == [
                "verifying sha256 digest", "writing manifest", "success",
            ]  # fmt: skip
            again = await server.post("/api/pull", {"name": "user/toy", "stream": False})
            assert again.json == {"status": "success"}
            gone = await server.request("DELETE", "/api/delete", data=b'{"model": "user/toy"}')
            assert gone.status == 200 and list(tmp_path.iterdir()) == []
            gone = await server.request("DELETE", "/api/delete", data=b'{"model": "user/toy"}')
            assert gone.status == 404 and "no model" in gone.json["error"]

    run(body)


def test_a_pull_of_ollamas_ends_with_its_last_client_unless_others_want_it(
    hub: HubServer, tmp_path: Path
) -> None:
    hub.pace_s = 0.05

    async def body() -> None:
        async with serving(hub, tmp_path) as server:

            async def leave_early() -> None:
                async with server.session.post(
                    server.url + "/api/pull", data=b'{"model": "user/toy"}'
                ) as reply:
                    await reply.content.readline()

            async def status() -> str:
                [task] = (await server.get("/models/pull")).json["data"]
                return task["status"]

            await leave_early()
            while await status() != "stopped":
                await asyncio.sleep(0.01)
            hub.pace_s = 0.02
            assert (await server.post("/models/pull", {"model": "user/toy"})).status == 200
            await leave_early()
            while await status() in ("queued", "running"):
                await asyncio.sleep(0.01)
            assert await status() == "success"

    run(body)
    assert list(files_in(tmp_path).values()) == [DATA]


def test_a_server_without_downloads_says_so(hub: HubServer) -> None:
    async def body() -> None:
        models = FixedModels([served(InProcessEngineClient(ScriptedEngine(says("hello"))))])
        async with serving_models(models) as server:
            for method, path in (("POST", "/v1/models/pull"), ("GET", "/events")):
                reply = await server.request(method, path, data=b'{"model": "user/toy"}')
                assert reply.status == 501 and "dllama pull" in reply.error["message"]

    run(body)
