"""Requests over HTTP: redirects one by one, so that no token and no request goes where it must
not."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Self

import aiohttp

from dllama.errors import HubError
from dllama.hub import web_rules
from dllama.hub.answers import Passing
from dllama.hub.settings import HubSettings

READ_BYTES = 1 << 20
_REDIRECTS = (301, 302, 303, 307, 308)


class Web:
    """One client of the network, with the environment's proxies and certificates. Opened within a
    running loop, by its first request."""

    def __init__(self, settings: HubSettings) -> None:
        self._settings = settings
        self._session: aiohttp.ClientSession | None = None
        self._token: str | None = None
        self._opening = asyncio.Lock()

    async def _open(self) -> aiohttp.ClientSession:
        async with self._opening:
            if self._session is None:
                self._token = await asyncio.to_thread(self._settings.find_token)
                # Made here: the server imports aiohttp without any authority's certificates.
                tls = await asyncio.to_thread(ssl.create_default_context)
                self._session = aiohttp.ClientSession(
                    connector=aiohttp.TCPConnector(ssl=tls, limit=0),
                    timeout=aiohttp.ClientTimeout(
                        total=None, sock_connect=self._settings.connect_s,
                        sock_read=self._settings.stall_s,
                    ),
                    headers={"User-Agent": "dllama"},
                    auto_decompress=False,
                    trust_env=True,
                    read_bufsize=READ_BYTES,
                    cookie_jar=aiohttp.DummyCookieJar(),
                )  # fmt: skip
            return self._session

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.close()

    @asynccontextmanager
    async def get(
        self, url: str, headers: Mapping[str, str]
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Yields the answer at the end of all redirects. Raises Passing where the network fails,
        also while the body is read; HubError where an address is not followed, or in offline
        mode."""
        endpoint = self._settings.endpoint
        web_rules.check_address(url, endpoint)
        if self._settings.is_offline:
            raise HubError(
                f"{web_rules.without_query(url)} is not asked: HF_HUB_OFFLINE is set. Leave it out "
                "to download."
            )
        session = await self._open()
        try:
            for _ in range(web_rules.MAX_HOPS):
                own = web_rules.headers_for(url, endpoint, self._token)
                async with session.get(
                    url, headers={**headers, **own}, allow_redirects=False
                ) as response:
                    if response.status not in _REDIRECTS:
                        yield response
                        return
                    url = web_rules.next_hop(url, response.headers.get("Location"), endpoint)
        except (aiohttp.ClientError, TimeoutError, ConnectionError) as error:
            shown = web_rules.without_query(url)
            raise Passing(f"{shown}: {_words(error, self._settings)}") from error
        raise HubError(f"{web_rules.without_query(url)} redirects in a circle.")


def _words(error: Exception, settings: HubSettings) -> str:
    if isinstance(error, TimeoutError):
        return f"no byte came for {settings.stall_s:g} s"
    if isinstance(error, aiohttp.ClientPayloadError):
        return "the connection ended in the middle"
    return str(error) or type(error).__name__
