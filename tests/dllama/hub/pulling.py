"""Downloads from the hub of the tests, in a folder of their own and without patience."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from dllama.hub.downloads import Downloads
from dllama.hub.settings import HubSettings
from dllama.hub.store import Store
from dllama.hub.task import DownloadTask, Event
from tests.hub_server import HubServer

PATIENCE_S = 60.0


def settings_of(hub: HubServer, folder: Path, **more: object) -> HubSettings:
    """Settings that wait for nothing longer than they must."""
    found = {"first_wait_s": 0.01, "max_wait_s": 0.05, "spare_bytes": 0, "stall_s": 20.0, **more}
    return HubSettings(folder=folder, endpoint=hub.url, **found)  # type: ignore[arg-type]


@dataclass
class Pulling:
    """Downloads, and all the events that there were."""

    downloads: Downloads
    events: list[Event] = field(default_factory=list)

    async def over(self, task: DownloadTask, since: int = 0) -> list[Event]:
        """The events of a task from the number `since` on, once it is over and everything about it
        is cleared away."""
        async with asyncio.timeout(PATIENCE_S):
            while not task.is_over or task.id in self.downloads.busy():
                await asyncio.sleep(0.005)
            while True:
                found = [event for event in self.events[since:] if event.task_id == task.id]
                if any(event.is_last for event in found):
                    return found
                await asyncio.sleep(0.005)

    async def pull(self, name: str) -> list[Event]:
        since = len(self.events)
        return await self.over(await self.downloads.pull(name), since)


@asynccontextmanager
async def pulling(settings: HubSettings) -> AsyncIterator[Pulling]:
    downloads = Downloads(settings)
    found = Pulling(downloads)

    async def listen() -> None:
        with downloads.reader() as reader:
            while True:
                found.events += await reader.wait()

    listening = asyncio.create_task(listen())
    await asyncio.sleep(0)
    try:
        yield found
    finally:
        await downloads.close()
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)


def files_in(folder: Path) -> dict[str, bytes]:
    """Everything below a folder, but for receipts, and what goes while it is read."""
    found = {}
    for path in sorted(folder.rglob("*")):
        with suppress(FileNotFoundError):
            if path.is_file() and path.name != "dllama-model.json":
                found[path.relative_to(folder).as_posix()] = path.read_bytes()
    return found


def whole_models(folder: Path) -> dict[str, bytes]:
    """The files of all models that are whole, by model and path."""
    return {
        f"{model.name} {file.path}": (home / file.path).read_bytes()
        for model in Store(folder).models()
        for home in [model.path.parent if model.path.is_file() else model.path]
        for file in model.files
    }
