"""Downloads over TLS and through a proxy, as the environment says."""

from __future__ import annotations

import asyncio
import hashlib
import ssl
from pathlib import Path

import pytest

from dllama.errors import HubError
from dllama.hub.task import EventType
from tests.dllama.hub.pulling import pulling, settings_of, whole_models
from tests.hub_server import hub_server

DATA = hashlib.sha256(b"toy").digest() * 2000
FILES = {"toy-Q4_0.gguf": DATA}


def test_certificates_are_checked_by_the_authorities_of_the_system(
    certificate: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also in a server, which imports aiohttp without any authority."""
    import api.http.lean_aiohttp  # noqa: F401

    cert, key = certificate
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(cert, key)

    async def run() -> None:
        async with pulling(settings_of(hub, tmp_path)) as pull:
            with pytest.raises(HubError, match="certificate"):
                await pull.downloads.pull("user/toy")
        monkeypatch.setenv("SSL_CERT_FILE", str(cert))
        async with pulling(settings_of(hub, tmp_path)) as pull:
            assert (await pull.pull("user/toy"))[-1].type is EventType.SUCCESS

    with hub_server(tls) as hub:
        assert hub.url.startswith("https://")
        hub.repos["user/toy"] = FILES
        asyncio.run(run())
    assert list(whole_models(tmp_path).values()) == [DATA]


def test_a_proxy_of_the_environment_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The hub of the tests stands in for a proxy: it answers for a host that there is not."""
    with hub_server() as proxy:
        monkeypatch.setenv("http_proxy", proxy.url)
        monkeypatch.delenv("no_proxy", raising=False)
        monkeypatch.delenv("NO_PROXY", raising=False)
        proxy.repos["user/toy"] = FILES
        proxy.url = proxy.cdn = "http://hub.invalid"

        async def run() -> None:
            async with pulling(settings_of(proxy, tmp_path)) as pull:
                assert (await pull.pull("user/toy"))[-1].type is EventType.SUCCESS

        asyncio.run(run())
    assert {seen.host for seen in proxy.seen} == {"hub.invalid"}
    assert list(whole_models(tmp_path).values()) == [DATA]
