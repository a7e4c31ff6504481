"""Downloads of any number of models: tasks that wait and run, and the readers of their events."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from functools import partial

from dllama.errors import HubError
from dllama.hub.found import means
from dllama.hub.hub_api import look_up
from dllama.hub.mailbox import Mailbox
from dllama.hub.model_download import ModelDownload
from dllama.hub.names import parse_name
from dllama.hub.settings import HubSettings
from dllama.hub.store import Store
from dllama.hub.task import DownloadTask, Event, EventType, State, new_task
from dllama.hub.task_board import TaskBoard
from dllama.hub.web import Web

log = logging.getLogger(__name__)


class Reader:
    """Hears of every task, from the moment that it was made."""

    def __init__(self) -> None:
        self._mailbox = Mailbox()
        self._has_mail = asyncio.Event()

    def put(self, event: Event) -> None:
        self._mailbox.put(event)
        self._has_mail.set()

    async def wait(self) -> list[Event]:
        """Returns what has come, at least one event. Who is cancelled meanwhile loses none."""
        await self._has_mail.wait()
        self._has_mail.clear()
        return self._mailbox.take_all()


class Downloads:
    """All downloads of one process, on one event loop. `on_whole` is awaited once a model is here,
    before readers hear of it."""

    def __init__(self, settings: HubSettings, now: Callable[[], float] = time.monotonic) -> None:
        self.settings = settings
        self._now = now
        self._web = Web(settings)
        self._store = Store(settings.folder)
        self._board = TaskBoard(settings.max_tasks)
        self._slots = asyncio.Semaphore(settings.max_files)
        self._running: dict[str, asyncio.Task[None]] = {}
        self._readers: set[Reader] = set()
        self.on_whole: Callable[[], Awaitable[None]] | None = None

    def tasks(self) -> list[DownloadTask]:
        """Returns the tasks that wait and run, and the last of those that are over."""
        return self._board.all()

    def busy(self) -> set[str]:
        """Returns the ids of tasks whose files are open: one that was stopped closes them soon."""
        return set(self._running)

    async def pull(self, text: str) -> DownloadTask:
        """Asks the hub what a name means, and begins to download it; returns the task, which may be
        one that runs already. Raises ModelNameError, NotOnHub or HubError."""
        name = parse_name(text, self.settings.endpoint)
        selection = await look_up(self._web, self.settings, name)
        home = self._store.home_of(selection)
        task = self._board.add(new_task(selection, str(home)))
        self._start_some()
        return task

    def stop(self, text: str) -> DownloadTask | None:
        """Ends the task of this id or name at once, whether it runs or waits, and returns it; None
        where there is none. What came is kept, and the next pull goes on with it."""
        task = self._find(text)
        if task is None or task.is_over:
            return None
        self._tell(task.stop())
        running = self._running.get(task.id)
        if running is not None:
            running.cancel()
        self._start_some()
        return task

    @contextmanager
    def reader(self) -> Iterator[Reader]:
        """Yields a reader, which first hears how the tasks stand that wait or run."""
        reader = Reader()
        for task in self._board.all():
            if not task.is_over:
                reader.put(task.event(EventType.UPDATED))
        self._readers.add(reader)
        try:
            yield reader
        finally:
            self._readers.discard(reader)

    @contextmanager
    def following(self, task: DownloadTask) -> Iterator[None]:
        """Keeps a task wanted meanwhile: when its last follower leaves it is stopped, unless
        somebody wanted it who did not stay."""
        task.n_followers += 1
        try:
            yield
        finally:
            task.n_followers -= 1
            if task.n_followers == 0 and not task.is_kept:
                self.stop(task.id)

    async def close(self) -> None:
        """Stops all downloads, which can be gone on with."""
        for task in self._board.all():
            self._tell(task.stop())
        for running in self._running.values():
            running.cancel()
        await asyncio.gather(*self._running.values(), return_exceptions=True)
        await self._web.close()

    def _find(self, text: str) -> DownloadTask | None:
        task = self._board.find(text)
        if task is not None:
            return task
        try:
            name = parse_name(text, self.settings.endpoint)
        except HubError:
            return None
        return next((t for t in self._board.all() if means(name, t.id) and not t.is_over), None)

    def _start_some(self) -> None:
        """Starts the tasks that a place is free for. One of the same model that has just been
        stopped ends first."""
        for task in self._board.startable():
            if task.id not in self._running:
                self._tell(task.start(self._now()))
                running = self._running[task.id] = asyncio.create_task(self._run(task))
                # Not at the end of _run: what is cancelled before its first step never gets there.
                running.add_done_callback(partial(self._ended, task.id))

    def _ended(self, task_id: str, running: asyncio.Task[None]) -> None:
        self._running.pop(task_id, None)
        self._start_some()

    async def _run(self, task: DownloadTask) -> None:
        try:
            await ModelDownload(
                task, self.settings, self._web, self._slots, self._tell, self._now,
                lambda: self._still_needed(task),
            ).run()  # fmt: skip
            if self.on_whole is not None:
                await self.on_whole()
            self._tell(task.succeed())
        except HubError as error:
            self._tell(task.fail(str(error)))
        except OSError as error:
            self._tell(task.fail(f"The system refused something: {error}."))
        except asyncio.CancelledError:
            raise
        except Exception:
            log.exception("the download of %s failed", task.id)
            self._tell(task.fail("The download met an error that was not expected; see the log."))

    def _still_needed(self, but: DownloadTask) -> int:
        """Returns the bytes that other tasks which run will still write."""
        tasks = [t for t in self._board.all() if t.state is State.RUNNING and t is not but]
        return sum(task.n_bytes - task.n_done for task in tasks)

    def _tell(self, event: Event | None) -> None:
        if event is not None:
            for reader in list(self._readers):
                reader.put(event)
