"""Downloads over TLS and through a proxy, as the environment says."""

from __future__ import annotations

import asyncio
import hashlib
import ssl
import subprocess
from pathlib import Path

import pytest

from dllama.errors import HubError
from dllama.hub.task import EventType
from tests.dllama.hub.pulling import pulling, settings_of, whole_models
from tests.hub_server import hub_server

DATA = hashlib.sha256(b"toy").digest() * 2000
FILES = {"toy-Q4_0.gguf": DATA}


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("tls")
    cert, key = folder / "cert.pem", folder / "key.pem"
    command = [
        "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
        "-nodes", "-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1",
        "-keyout", str(key), "-out", str(cert),
    ]  # fmt: skip
    try:
        subprocess.run(command, check=True, capture_output=True, timeout=60)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"a certificate is made with openssl, which failed: {error}")
    return cert, key


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
