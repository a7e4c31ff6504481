"""Unix sockets, TLS, and connections that say nothing."""

from __future__ import annotations

import asyncio
import socket
import ssl
from pathlib import Path

import aiohttp
import pytest

from api.app import build_app
from api.config import ApiConfig
from api.engines.in_process import InProcessEngineClient
from api.http.listener import tls_context, unix_path
from api.http.serve import serve
from api.models.fixed import FixedModels
from dllama.errors import ConfigError
from tests.api.serving import run, says, served, until
from tests.scripted_runner import ScriptedEngine


def an_app(config: ApiConfig | None = None):
    client = InProcessEngineClient(ScriptedEngine(says("hello")))
    return build_app(FixedModels([served(client)]), config or ApiConfig())


class Serving:
    """A running server, for `async with`."""

    def __init__(self, host: str, **more: object) -> None:
        config = more.pop("config", None)
        self.urls: list[str] = []
        self._stop = asyncio.Event()
        self._task = asyncio.create_task(
            serve(an_app(config), [host], 0, stop=self._stop, on_ready=self.urls.append, **more)  # type: ignore[arg-type]
        )

    async def __aenter__(self) -> str:
        await until(lambda: bool(self.urls) or self._task.done())
        if self._task.done():
            self._task.result()
        return self.urls[0]

    async def __aexit__(self, *error: object) -> None:
        self._stop.set()
        await self._task


async def ask_over(path: Path) -> int:
    connector = aiohttp.UnixConnector(str(path))
    async with aiohttp.ClientSession(connector=connector) as session:
        body = {"prompt": "a"}
        return (await session.post("http://a/v1/completions", json=body)).status


def test_several_addresses_and_a_socket_at_once(tmp_path: Path) -> None:
    path = tmp_path / "d.sock"
    urls: list[str] = []

    async def body() -> None:
        stop = asyncio.Event()
        hosts = ["127.0.0.1", "127.0.0.2", str(path)]
        task = asyncio.create_task(serve(an_app(), hosts, 0, stop=stop, on_ready=urls.append))
        await until(lambda: bool(urls) or task.done())
        port = urls[0].rpartition(":")[2]
        async with aiohttp.ClientSession() as session:
            for host in hosts[:2]:
                assert (await session.get(f"http://{host}:{port}/health")).status == 200
        assert await ask_over(path) == 200
        stop.set()
        await task
        with pytest.raises(ConfigError, match=r"192\.0\.2\.1"):
            await serve(an_app(), ["127.0.0.1", "192.0.2.1"], 0)

    run(body)


def test_a_unix_socket_is_served_replaced_and_removed(tmp_path: Path) -> None:
    path = tmp_path / "d.sock"

    async def body() -> None:
        for host in (str(path), f"unix:{path}"):
            async with Serving(host) as url:
                assert str(path) in url
                assert path.stat().st_mode & 0o777 == 0o600
                assert await ask_over(path) == 200
                with pytest.raises(ConfigError, match="in use"):
                    await serve(an_app(), [host], 0)
        with socket.socket(socket.AF_UNIX) as dead:
            path.unlink(missing_ok=True)
            dead.bind(str(path))
        async with Serving(str(path)):  # its server died without a word
            assert await ask_over(path) == 200
        path.unlink(missing_ok=True)
        path.write_text("precious")
        with pytest.raises(ConfigError, match="no socket"):
            await serve(an_app(), [str(path)], 0)
        assert path.read_text() == "precious"
        with pytest.raises(ConfigError, match="100 characters"):
            await serve(an_app(), [f"unix:{tmp_path}/{'x' * 200}"], 0)

    run(body)


def test_what_names_a_socket() -> None:
    assert unix_path("127.0.0.1") is None and unix_path("box") is None
    assert unix_path("unix:/run/a") == Path("/run/a") and unix_path("b.sock") == Path("b.sock")


def test_tls(certificate: tuple[Path, Path]) -> None:
    cert, key = certificate

    async def body() -> None:
        trusting = ssl.create_default_context(cafile=str(cert))
        async with Serving("127.0.0.1", tls=tls_context(cert, key)) as url:
            assert url.startswith("https://")
            connector = aiohttp.TCPConnector(ssl=trusting)
            async with aiohttp.ClientSession(connector=connector) as session:
                reply = await session.post(url + "/v1/completions", json={"prompt": "a"})
                assert reply.status == 200
                await reply.read()
                with pytest.raises(aiohttp.ClientError):
                    await session.get(url.replace("https:", "http:") + "/health")

    run(body)


def test_certificates_that_cannot_be_used(certificate: tuple[Path, Path], tmp_path: Path) -> None:
    cert, key = certificate
    assert tls_context(None, None) is None
    with pytest.raises(ConfigError, match="both"):
        tls_context(cert, None)
    junk = tmp_path / "junk.pem"
    junk.write_text("no certificate")
    for files in ((junk, key), (cert, junk), (cert, tmp_path / "missing")):
        with pytest.raises(ConfigError, match="PEM"):
            tls_context(*files)


def test_connections_that_bring_no_request_are_closed() -> None:
    async def body() -> None:
        async with Serving("127.0.0.1", config=ApiConfig(header_timeout_s=0.3)) as url:
            host, port = url.removeprefix("http://").split(":")
            silent = [await asyncio.open_connection(host, int(port)) for _ in range(3)]
            silent[1][1].write(b"POST /v1/completions HTTP/1.1\r\nHost:")
            async with aiohttp.ClientSession() as session:
                first = await session.get(url + "/health")
                await first.read()
                for reader, writer in silent:
                    async with asyncio.timeout(20):
                        assert await reader.read() == b""  # the end
                    writer.close()
                kept = await session.get(url + "/health")  # over the same connection
                assert kept.status == 200

    run(body)


def test_headers_have_a_limit() -> None:
    async def body() -> None:
        async with Serving("127.0.0.1") as url, aiohttp.ClientSession() as session:
            large = {"X-Large": "x" * 9000}
            assert (await session.get(url + "/health", headers=large)).status == 400
            many = {f"X-{i}": "x" for i in range(300)}
            assert (await session.get(url + "/health", headers=many)).status == 400
            assert (await session.get(url + "/health")).status == 200

    run(body)
