"""The events that one reader has not read yet. No I/O."""

from __future__ import annotations

from dllama.hub.task import Event, EventType


class Mailbox:
    """Keeps events in order. Of a task's updates only the newest is kept, so that a slow reader
    costs little memory and still hears of every start and end."""

    def __init__(self) -> None:
        self._events: list[Event] = []

    def __len__(self) -> int:
        return len(self._events)

    def put(self, event: Event) -> None:
        if event.type is EventType.UPDATED:
            # An update before a start would be of a task that was there before.
            for i in range(len(self._events) - 1, -1, -1):
                if self._events[i].task_id == event.task_id:
                    if self._events[i].type is EventType.UPDATED:
                        self._events[i] = event
                        return
                    break
        self._events.append(event)

    def take_all(self) -> list[Event]:
        """Returns what has come, and forgets it."""
        events, self._events = self._events, []
        return events
