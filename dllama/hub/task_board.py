"""Which tasks run and which wait, in the order they came. No I/O."""

from __future__ import annotations

from dllama.errors import HubError
from dllama.hub.task import DownloadTask, State

MAX_WAITING = 256
MAX_KEPT = 64  # tasks that are over, for those who look


class TaskBoard:
    """All tasks by their ids: at most `max_running` run at once; of those that are over the last
    ones are kept."""

    def __init__(self, max_running: int) -> None:
        self._max_running = max_running
        self._tasks: dict[str, DownloadTask] = {}

    def all(self) -> list[DownloadTask]:
        return list(self._tasks.values())

    def find(self, task_id: str) -> DownloadTask | None:
        return self._tasks.get(task_id)

    def add(self, task: DownloadTask) -> DownloadTask:
        """Takes a task in, as the last that waits. Returns the one that counts: the same model is
        downloaded once, however often it is asked for. Raises HubError where too many wait."""
        known = self._tasks.get(task.id)
        if known is not None and not known.is_over:
            return known
        n_waiting = sum(not one.is_over for one in self._tasks.values())
        if n_waiting >= MAX_WAITING:
            raise HubError(f"{n_waiting} downloads wait already; stop some, or ask again later.")
        self._tasks.pop(task.id, None)
        self._tasks[task.id] = task
        self._forget()
        return task

    def startable(self) -> list[DownloadTask]:
        """Returns the tasks that a place is free for, the first that came first."""
        tasks = self._tasks.values()
        n_running = sum(task.state is State.RUNNING for task in tasks)
        waiting = [task for task in tasks if task.state is State.QUEUED]
        return waiting[: max(0, self._max_running - n_running)]

    def _forget(self) -> None:
        over = [task.id for task in self._tasks.values() if task.is_over]
        for task_id in over[: max(0, len(over) - MAX_KEPT)]:
            del self._tasks[task_id]
