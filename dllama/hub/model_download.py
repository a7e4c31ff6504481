"""Downloads one model: all its files beside each other, and then the model as a whole appears."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from dllama.errors import HubError
from dllama.hub.hub_cache import cached_blob
from dllama.hub.partial_file import PART
from dllama.hub.receipts import read_receipt, receipt_of, write_receipt
from dllama.hub.settings import HubSettings
from dllama.hub.staging_lock import StagingLock
from dllama.hub.store import Store
from dllama.hub.task import DownloadTask, Event
from dllama.hub.threads import in_thread
from dllama.hub.transfer import fetch
from dllama.hub.web import Web

_LOCK_CHECK_S = 0.2
Tell = Callable[[Event | None], None]


class ModelDownload:
    """Carries out one task. `slots` bounds the files that all tasks download at once; `others`
    returns the bytes that other tasks will still need; `now` is the time."""

    def __init__(
        self, task: DownloadTask, settings: HubSettings, web: Web, slots: asyncio.Semaphore,
        tell: Tell, now: Callable[[], float], others: Callable[[], int],
    ) -> None:  # fmt: skip
        self._task, self._settings, self._web, self._slots = task, settings, web, slots
        self._tell, self._now, self._others = tell, now, others
        self._store = Store(settings.folder)
        self._staging = self._store.staging_of(task.selection.id)
        self._digests: dict[str, str] = {}

    async def run(self) -> None:
        """Returns when the model is here, whole. Raises HubError or OSError where it does not come;
        what came of it is kept for another time where that makes sense."""
        async with self._alone():
            if await in_thread(self._store.holds, self._task.selection):
                return
            try:
                await self._all_files()
            except BaseException:
                self._clean_up()
                raise
            await in_thread(
                self._store.publish, self._task.selection,
                receipt_of(self._task.selection, self._digests),
            )  # fmt: skip

    async def _all_files(self) -> None:
        await in_thread(self._begin)
        self._check_room()
        items = self._task.items
        # All end before the folder is given up, also where one is cancelled or fails unexpectedly.
        ends = await asyncio.gather(
            *(self._item(i) for i in range(len(items))), return_exceptions=True
        )
        for end in ends:
            if end is not None:
                raise end
        failed = [str(item.error) for item in items if item.error is not None]
        if failed and len(items) == 1:
            raise HubError(failed[0])
        if failed:
            raise HubError(f"{len(failed)} of {len(items)} files did not come. {failed[0]}")

    @asynccontextmanager
    async def _alone(self) -> AsyncIterator[None]:
        """Waits until no other process downloads the same model."""
        lock = StagingLock(self._staging)
        while not lock.try_acquire():
            note = "another process downloads this model; waiting for it"
            if self._task.items[0].note != note:
                self._tell(self._task.waits(0, note, self._now()))
            await asyncio.sleep(_LOCK_CHECK_S)
        try:
            yield
        finally:
            lock.release()

    def _begin(self) -> None:
        """Makes the folder of the unfinished model, and counts what is in it."""
        self._staging.mkdir(parents=True, exist_ok=True)
        self._forget_other_versions()
        write_receipt(self._staging, receipt_of(self._task.selection))
        for i, item in enumerate(self._task.items):
            for beginning in self._beginnings(i):
                if beginning.is_file():
                    n_bytes = min(beginning.stat().st_size, item.n_bytes)
                    self._tell(self._task.progress(i, n_bytes, self._now()))

    def _forget_other_versions(self) -> None:
        """Removes what came of files without a checksum that have another content at their server
        by now: the rest would not belong to it."""
        before = read_receipt(self._staging)
        known = {} if before is None else {f.path: f.version for f in before.files}
        for i, file in enumerate(self._task.selection.files):
            version = known.get(file.path, "")
            if file.checksum is None and version and file.version and version != file.version:
                for beginning in self._beginnings(i):
                    beginning.unlink(missing_ok=True)

    def _check_room(self) -> None:
        """Raises HubError where the disk has no room for what is missing."""
        missing = self._task.n_bytes - self._task.n_done
        free = shutil.disk_usage(self._staging).free
        wanted = missing + self._others() + self._settings.spare_bytes
        if missing and wanted > free:
            raise HubError(
                f"{self._task.id} needs {missing / 1e9:.2f} GB more on the disk of "
                f"{self._settings.folder}, where {free / 1e9:.2f} GB are free, less "
                f"{(wanted - missing) / 1e9:.2f} GB for other downloads and to spare. Make room "
                "(dllama list, dllama rm), or set DLLAMA_MODELS to a folder on another disk."
            )

    async def _item(self, index: int) -> None:
        """Downloads one file. One that fails leaves the others."""
        file, path = self._task.selection.files[index], self._path(index)
        found = file.checksum
        try:
            async with self._slots:
                if not await in_thread(self._is_done, index):
                    blob = cached_blob(self._settings.cache, self._task.selection.repo, file)
                    found = await fetch(
                        self._web, self._settings, file, path, _ItemWatcher(self, index), blob
                    )
        except (HubError, OSError) as error:
            told = str(error) if isinstance(error, HubError) else _words(error)
            self._tell(self._task.item_failed(index, told, self._now()))
        else:
            self._digests[file.path] = str(found or "N/A")
            self._tell(self._task.item_done(index, self._digests[file.path], self._now()))

    def _is_done(self, index: int) -> bool:
        """Returns whether a file was finished by an earlier download: only what was checked has
        its own name."""
        path = self._path(index)
        return path.is_file() and path.stat().st_size == self._task.items[index].n_bytes

    def _path(self, index: int) -> Path:
        return self._staging / self._task.selection.files[index].path

    def _beginnings(self, index: int) -> tuple[Path, Path]:
        """Returns where a file lies once it is whole, and until then."""
        path = self._path(index)
        return path, path.with_name(path.name + PART)

    def _clean_up(self) -> None:
        """Leaves nothing behind of a download that brought nothing."""
        has_bytes = any(
            path.is_file() and path.stat().st_size
            for i in range(len(self._task.items))
            for path in self._beginnings(i)
        )
        if not has_bytes:
            self._store.discard(self._task.selection.id)

    # ---- for _ItemWatcher
    def progress(self, index: int, n_done: int) -> None:
        self._tell(self._task.progress(index, n_done, self._now()))

    def waits(self, index: int, note: str) -> None:
        self._tell(self._task.waits(index, note, self._now()))


class _ItemWatcher:
    """Passes on how one file of a model comes."""

    def __init__(self, download: ModelDownload, index: int) -> None:
        self._download, self._index = download, index

    def progress(self, n_done: int) -> None:
        self._download.progress(self._index, n_done)

    def waits(self, note: str) -> None:
        self._download.waits(self._index, note)


def _words(error: OSError) -> str:
    what = f"{error.filename}: " if error.filename else ""
    return f"The system refused something: {what}{error.strerror or error}."
