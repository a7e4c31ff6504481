"""The downloads of a server, made when a request first needs them, and what its list of models
hears of them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from aiohttp import web

from api.errors import ApiError
from api.models.pool import ModelPool
from dllama.errors import DllamaError
from dllama.hub.downloads import Downloads
from dllama.hub.names import without_hub
from dllama.hub.task import Event, EventType, Json

log = logging.getLogger(__name__)

ROUTER_EVENTS = {
    EventType.STARTED: "download_progress",
    EventType.UPDATED: "download_progress",
    EventType.SUCCESS: "download_finished",
    EventType.STOPPED: "download_failed",
    EventType.ERROR: "download_failed",
}
"""Events as llama-server's router calls them."""


class DownloadService:
    """Makes the downloads once they are needed; a server without `make` downloads nothing. The
    models of a `pool` are listed anew when one has come or gone."""

    def __init__(
        self, make: Callable[[], Downloads] | None = None, pool: ModelPool | None = None
    ) -> None:
        self._make, self._pool = make, pool
        self._downloads: Downloads | None = None
        self._announcing: asyncio.Task[None] | None = None

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
            self._downloads.on_whole = self.models_changed
            if self._pool is not None:
                announcing = self._announce(self._downloads, self._pool)
                self._announcing = asyncio.create_task(announcing)
        return self._downloads

    def stop(self, name: str) -> bool:
        """Stops the download of a model, if there is one; returns whether there was."""
        return self._downloads is not None and self._downloads.stop(name) is not None

    async def models_changed(self) -> None:
        """Has the models listed anew: one has come or gone."""
        if self._pool is not None:
            try:
                await self._pool.reload()
            except (DllamaError, OSError) as error:
                log.warning("The list of models stays as it was: %s", error)

    async def close(self) -> None:
        """Stops all downloads; the next pull of each goes on with it."""
        if self._downloads is not None:
            await self._downloads.close()
        if self._announcing is not None:
            self._announcing.cancel()
            await asyncio.gather(self._announcing, return_exceptions=True)

    async def _announce(self, downloads: Downloads, pool: ModelPool) -> None:
        """Tells the listeners of a router what becomes of downloads."""
        with downloads.reader() as reader:
            while True:
                for event in await reader.wait():
                    name = without_hub(event.task_id)  # as it will be in the list
                    pool.events.tell(name, ROUTER_EVENTS[event.type], router_data(event))


def router_data(event: Event) -> Json:
    """Returns the data of an event as llama-server's router has it: bytes by address, or why a
    download has failed."""
    items = event.task["items"]
    assert isinstance(items, list)
    progress = {
        item["downloadUrl"]: {"done": item["downloadedBytes"], "total": item["bytes"]}
        for item in items
    }
    if event.type is EventType.STOPPED:
        return {"progress": progress, "error": "The download was stopped."}
    return {"progress": progress, "error": event.task["error"]}


DOWNLOADS = web.AppKey("DOWNLOADS", DownloadService)


def downloads_of(request: web.Request) -> Downloads:
    """Returns the downloads of the server that was asked. Raises as DownloadService.downloads."""
    return request.app[DOWNLOADS].downloads()
