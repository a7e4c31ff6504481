"""The downloads of a server, made when a request first needs them."""

from __future__ import annotations

from collections.abc import Callable

from aiohttp import web

from api.errors import ApiError
from dllama.hub.downloads import Downloads


class DownloadService:
    """Makes the downloads once they are needed; a server without `make` downloads nothing."""

    def __init__(self, make: Callable[[], Downloads] | None = None) -> None:
        self._make = make
        self._downloads: Downloads | None = None

    def downloads(self) -> Downloads:
        """Returns the downloads. Raises ApiError where this server has none, ConfigError where the
        environment is wrong."""
        if self._downloads is None:
            if self._make is None:
                raise ApiError(
                    501, "This server downloads no models; use dllama pull where it runs.",
                    "not_supported_error", code="not_supported",
                )  # fmt: skip
            self._downloads = self._make()
        return self._downloads

    async def close(self) -> None:
        """Stops all downloads; the next pull of each goes on with it."""
        if self._downloads is not None:
            await self._downloads.close()


DOWNLOADS = web.AppKey("DOWNLOADS", DownloadService)


def downloads_of(request: web.Request) -> Downloads:
    """Returns the downloads of the server that was asked. Raises as DownloadService.downloads."""
    return request.app[DOWNLOADS].downloads()
