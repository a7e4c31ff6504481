"""Downloads one file: from where it stands, through what interrupts it, until its digest is
right."""

from __future__ import annotations

import asyncio
import errno
from pathlib import Path
from typing import Protocol

from dllama.errors import HubError
from dllama.hub.answers import Passing, Wanted, WrongContent, begins_at
from dllama.hub.checksum import Checksum
from dllama.hub.partial_file import PartialFile
from dllama.hub.patience import Patience
from dllama.hub.repository import RemoteFile
from dllama.hub.settings import HubSettings
from dllama.hub.threads import in_thread
from dllama.hub.web import Web

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class Watcher(Protocol):
    """Is told how a file comes."""

    def progress(self, n_done: int) -> None: ...

    def waits(self, note: str) -> None: ...


async def fetch(
    web: Web, settings: HubSettings, file: RemoteFile, path: Path, watcher: Watcher,
    cached: Path | None = None,
) -> Checksum:  # fmt: skip
    """Has `file` lie at `path`, and returns its digest. What is there of it is gone on with;
    `cached` may hold the same. Raises HubError with the reason; what came is kept where another
    try may go on with it, and removed where it is wrong or the disk is full. Raises OSError."""
    part = PartialFile(path, file)
    try:
        await in_thread(part.open, cached)
        while await in_thread(part.read_on):
            watcher.progress(part.n_bytes)
        return await _through_trouble(web, settings, file, part, watcher)
    except WrongContent:
        part.discard()
        raise
    except OSError as error:
        if error.errno not in _FULL:
            raise
        part.discard()
        raise HubError(
            f"{file.path}: the disk of {path.parent} is full ({error.strerror}). What was here of "
            "the file is removed; make room and pull the model again."
        ) from error
    finally:
        part.close()


async def _through_trouble(
    web: Web, settings: HubSettings, file: RemoteFile, part: PartialFile, watcher: Watcher
) -> Checksum:
    patience = Patience(settings.max_tries, settings.first_wait_s, settings.max_wait_s)
    has_begun_anew = False
    while True:
        before = part.n_bytes
        try:
            if not part.is_whole:
                await _receive(web, file, part, watcher)
            return await in_thread(part.finish)
        except WrongContent:
            if before == 0 or has_begun_anew:
                raise
            # The damage may be in what was here before: a power cut, another program.
            has_begun_anew = True
            await in_thread(part.clear)
            watcher.progress(0)
        except Passing as trouble:
            n_new = part.n_bytes - before
            wait_s = patience.after_failure(n_new, trouble.after_s)
            if wait_s is None:
                raise HubError(
                    f"{trouble}, {patience.n_vain} times in a row. Pull the model again later: it "
                    "goes on where it stands."
                ) from trouble
            watcher.waits(f"{trouble}; tried again in {wait_s:g} s")
            await asyncio.sleep(wait_s)


async def _receive(web: Web, file: RemoteFile, part: PartialFile, watcher: Watcher) -> None:
    """Appends what one answer brings. Raises as Web.get and begins_at."""
    wanted = Wanted(file.path, part.n_bytes, file.n_bytes, file.version)
    async with web.get(file.url, wanted.headers) as response:
        if begins_at(wanted, response.status, response.headers) < part.n_bytes:
            await in_thread(part.clear)
        watcher.progress(part.n_bytes)
        async for data in response.content.iter_any():
            await in_thread(part.append, data)
            watcher.progress(part.n_bytes)
    if not part.is_whole:
        raise Passing(f"{file.path}: the answer ended after {part.n_bytes} of {file.n_bytes} bytes")
