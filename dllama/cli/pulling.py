"""Downloads models for a command, and shows how they come."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from dllama.cli.terminal.download_view import DownloadView, download_view
from dllama.cli.terminal.output import note
from dllama.errors import DllamaError, HubError
from dllama.hub.downloads import Downloads
from dllama.hub.settings import HubSettings
from dllama.hub.task import DownloadTask, State


def pull_models(settings: HubSettings, names: Sequence[str]) -> list[DownloadTask | None]:
    """Downloads models beside each other; returns how each ended, None where its name means none.
    Errors are shown, and leave the others. What an interrupt leaves is gone on with later."""
    try:
        with download_view() as view:
            return asyncio.run(_pull(settings, names, view))
    except KeyboardInterrupt:
        note("what has come is kept: the same command goes on with it")
        raise


async def _pull(
    settings: HubSettings, names: Sequence[str], view: DownloadView
) -> list[DownloadTask | None]:
    downloads = Downloads(settings)
    showing = asyncio.create_task(_show(downloads, view))
    await asyncio.sleep(0)  # it listens now
    try:
        found = await asyncio.gather(*(_begun(downloads, name, view) for name in names))
        tasks = [task for task in found if task is not None]
        while not all(task.is_over for task in tasks):
            await asyncio.sleep(0.02)
        await asyncio.sleep(0)  # the last events are shown
        return found
    finally:
        await downloads.close()
        showing.cancel()
        await asyncio.gather(showing, return_exceptions=True)


async def _begun(downloads: Downloads, name: str, view: DownloadView) -> DownloadTask | None:
    try:
        return await downloads.pull(name)
    except HubError as error:
        view.refuse(str(error))
        return None


async def _show(downloads: Downloads, view: DownloadView) -> None:
    with downloads.reader() as reader:
        while True:
            for event in await reader.wait():
                view.show(event)


def pull_one(settings: HubSettings, name: str) -> str:
    """Downloads one model and returns its whole name. Raises DllamaError where it does not come;
    the reason was shown."""
    [task] = pull_models(settings, [name])
    if task is None or task.state is not State.SUCCESS:
        raise DllamaError(f"{name} could not be downloaded.")
    return task.id
