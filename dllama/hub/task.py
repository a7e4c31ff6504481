"""The life of a download, as events: what may happen to a task and its items, in which order, and
what readers are told. No I/O; the time is an argument."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from enum import StrEnum

from dllama.hub.repository import Selection

UPDATE_S = 0.5  # between two updates of a task: readers are people
WINDOW_S = 10.0  # over which the speed is measured
Json = dict[str, object]


class EventType(StrEnum):
    """The names of events, as cortex has them."""

    STARTED = "DownloadStarted"
    UPDATED = "DownloadUpdated"
    SUCCESS = "DownloadSuccess"
    STOPPED = "DownloadStopped"
    ERROR = "DownloadError"


class State(StrEnum):
    """What becomes of a task, or of an item of one."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCESS = "success"
    STOPPED = "stopped"
    ERROR = "error"


_END = {
    State.SUCCESS: EventType.SUCCESS,
    State.STOPPED: EventType.STOPPED,
    State.ERROR: EventType.ERROR,
}


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened to a task, with the task as it was then. The last event of a task
    `is_last`."""

    type: EventType
    task_id: str
    task: Json
    is_last: bool = False

    def as_json(self) -> Json:
        return {"type": str(self.type), "task": self.task}


@dataclass(slots=True)
class Item:
    """One file of a task."""

    id: str
    url: str
    path: str  # where it lies in the end
    checksum: str
    n_bytes: int
    n_done: int = 0
    state: State = State.QUEUED
    error: str | None = None
    note: str | None = None  # what it waits for

    def as_json(self) -> Json:
        return {
            "id": self.id,
            "downloadUrl": self.url,
            "localPath": self.path,
            "checksum": self.checksum,
            "bytes": self.n_bytes,
            "downloadedBytes": self.n_done,
            "state": str(self.state),
            "error": self.error,
            "note": self.note,
        }


@dataclass(slots=True)
class DownloadTask:
    """The download of one model. Every method that changes it returns the event of the change, or
    None where readers need not hear of it."""

    selection: Selection
    items: list[Item]
    state: State = State.QUEUED
    error: str | None = None
    is_kept: bool = False  # it goes on without followers
    n_followers: int = 0
    _told_s: float = float("-inf")
    _pace: deque[tuple[float, int]] = field(default_factory=deque)

    @property
    def id(self) -> str:
        return self.selection.name

    @property
    def is_over(self) -> bool:
        return self.state in _END

    @property
    def n_bytes(self) -> int:
        return sum(item.n_bytes for item in self.items)

    @property
    def n_done(self) -> int:
        return sum(item.n_done for item in self.items)

    def start(self, now_s: float) -> Event | None:
        """A place is free for it."""
        if self.state is not State.QUEUED:
            return None
        self.state, self._told_s = State.RUNNING, now_s
        self._pace.append((now_s, self.n_done))
        return self.event(EventType.STARTED)

    def progress(self, index: int, n_done: int, now_s: float) -> Event | None:
        """So much of an item is here; less than before where it begins anew."""
        item = self.items[index]
        if self.is_over or item.state in _END:
            return None
        item.n_done, item.state, item.note = n_done, State.RUNNING, None
        return self._updated(now_s)

    def waits(self, index: int, note: str, now_s: float) -> Event | None:
        """An item waits, for the reason that the note says."""
        item = self.items[index]
        if self.is_over or item.state in _END:
            return None
        item.note = note
        return self._updated(now_s, is_due=True)

    def item_done(self, index: int, checksum: str, now_s: float) -> Event | None:
        """An item is here, and right."""
        item = self.items[index]
        if self.is_over:
            return None
        item.n_done, item.state, item.note = item.n_bytes, State.SUCCESS, None
        item.checksum = checksum
        return self._updated(now_s, is_due=True)

    def item_failed(self, index: int, error: str, now_s: float) -> Event | None:
        """An item will not come; the others go on."""
        item = self.items[index]
        if self.is_over:
            return None
        item.state, item.error, item.note = State.ERROR, error, None
        return self._updated(now_s, is_due=True)

    def succeed(self) -> Event | None:
        """All items are here, under their names."""
        return self._end(State.SUCCESS)

    def fail(self, error: str) -> Event | None:
        """The task ends without its model."""
        if not self.is_over:
            self.error = error
        return self._end(State.ERROR)

    def stop(self) -> Event | None:
        """Somebody wants it no more, whether it runs or waits."""
        return self._end(State.STOPPED)

    def speed(self) -> float:
        """Returns bytes a second, lately."""
        if len(self._pace) < 2:
            return 0.0
        (first_s, first), (last_s, last) = self._pace[0], self._pace[-1]
        return max(0.0, (last - first) / (last_s - first_s)) if last_s > first_s else 0.0

    def last_event(self) -> Event:
        """Returns the event that a task which is over ended with."""
        return self.event(_END[self.state])

    def event(self, kind: EventType) -> Event:
        """Returns an event of this kind about the task as it is now."""
        return Event(kind, self.id, self.as_json(), kind in _END.values())

    def as_json(self) -> Json:
        return {
            "id": self.id,
            "type": "Model",
            "items": [item.as_json() for item in self.items],
            "status": str(self.state),
            "error": self.error,
            "bytes": self.n_bytes,
            "downloadedBytes": self.n_done,
            "bytesPerSecond": round(self.speed()) if self.state is State.RUNNING else 0,
        }

    def _updated(self, now_s: float, *, is_due: bool = False) -> Event | None:
        if self.state is not State.RUNNING or (not is_due and now_s - self._told_s < UPDATE_S):
            return None
        self._told_s = now_s
        self._pace.append((now_s, self.n_done))
        while now_s - self._pace[0][0] > WINDOW_S:
            self._pace.popleft()
        return self.event(EventType.UPDATED)

    def _end(self, state: State) -> Event | None:
        if self.is_over:
            return None
        self.state = state
        for item in self.items:
            if item.state not in _END:
                item.state = State.SUCCESS if state is State.SUCCESS else State.STOPPED
            item.note = None
        return self.event(_END[state])


def new_task(selection: Selection, folder: str) -> DownloadTask:
    """Returns a task that waits, for a model that will lie in `folder`."""
    items = [
        Item(
            id=file.path,
            url=file.url.partition("?")[0],
            path=f"{folder}/{file.path}",
            checksum=str(file.checksum or "N/A"),
            n_bytes=file.n_bytes,
        )
        for file in selection.files
    ]
    return DownloadTask(selection, items)
