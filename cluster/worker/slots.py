"""Decides whether a daemon opens one more session: how many there are, of whom, and the memory
they were promised. Starts nothing; the clock is an argument."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from cluster.front.budget import Budget
from cluster.meeting_times import JOIN_DEADLINE_S
from cluster.sockets import SESSION_PORTS

DEFAULT_SESSIONS = 16
MOST_SESSIONS = (SESSION_PORTS - 1) // 3  # each listens on three; one is the encrypted door's
MAX_WAITING = 4  # of one host, that no root has joined to a mesh yet
OPENS_PER_S, OPENS_BURST = 1.0, 32.0  # of one host: each costs a process
MAX_HOSTS = 256  # whose opening is remembered


@dataclass(slots=True)
class Slot:
    """A session that was opened."""

    host: str
    needed_bytes: int
    opened_at: float
    has_joined: bool = False
    has_loaded: bool = False


class Slots:
    """The open sessions, by epoch, of which there are `max_sessions` at most. A quarter of them is
    kept for other hosts than the one that has the others."""

    def __init__(self, max_sessions: int = DEFAULT_SESSIONS) -> None:
        self._max_sessions = max_sessions
        self._max_per_host = max_sessions - max_sessions // 4
        self._slots: dict[int, Slot] = {}
        self._opens: dict[str, Budget] = {}  # by host

    def __len__(self) -> int:
        return len(self._slots)

    def refusal(
        self,
        host: str,
        needed_bytes: int,
        available_bytes: int,
        rss_bytes: Mapping[int, int],
        now: float,
    ) -> str | None:
        """Returns why a host gets no session that needs so much memory, or None.

        `rss_bytes` is what the sessions have taken of `available_bytes` already, by epoch.
        """
        of_host = [slot for slot in self._slots.values() if slot.host == host]
        n_waiting = sum(not slot.has_joined for slot in of_host)
        if len(self._slots) >= self._max_sessions or len(of_host) >= self._max_per_host:
            return (
                f"{len(self._slots)} sessions are open here, {len(of_host)} of them of the same "
                f"host, and at most {self._max_sessions} and {self._max_per_host} are; end one of "
                "them (a model that is loaded has one), or start this worker with a larger "
                "--max-sessions"
            )
        if n_waiting >= MAX_WAITING or self._budget(host, now).left(now) < 1:
            return (
                f"the same host has opened many sessions in a short time, and {n_waiting} of them "
                "wait to be joined; ask again in a moment"
            )
        promised = self.promised_bytes(rss_bytes)
        if needed_bytes > available_bytes - promised:
            other = f"{promised / 1e9:.2f} GB of them promised to sessions that load"
            return (
                f"{needed_bytes / 1e9:.2f} GB of memory are needed and "
                f"{available_bytes / 1e9:.2f} GB are free, {other}, with {len(self._slots)} other "
                "sessions open; give this worker a smaller share (--shares), or end the others"
            )
        return None

    def promised_bytes(self, rss_bytes: Mapping[int, int]) -> int:
        """Returns what sessions were promised and have not taken yet."""
        return sum(
            max(0, slot.needed_bytes - rss_bytes.get(epoch, 0))
            for epoch, slot in self._slots.items()
        )

    def take(self, epoch: int, host: str, needed_bytes: int, now: float) -> None:
        """Records a session that was opened."""
        self._slots[epoch] = Slot(host, needed_bytes, now)
        self._budget(host, now).spend(1, now)

    def joined(self, epoch: int) -> None:
        if epoch in self._slots:
            self._slots[epoch].has_joined = True

    def loaded(self, epoch: int) -> None:
        if epoch in self._slots:
            self._slots[epoch].has_loaded = True

    @property
    def is_loading(self) -> bool:
        """Whether a session has not loaded its weights yet."""
        return not all(slot.has_loaded for slot in self._slots.values())

    def free(self, epoch: int) -> None:
        self._slots.pop(epoch, None)

    def overdue(self, now: float) -> Iterator[int]:
        """Yields the sessions that no root has joined in time."""
        for epoch, slot in self._slots.items():
            if not slot.has_joined and now - slot.opened_at > JOIN_DEADLINE_S:
                yield epoch

    def _budget(self, host: str, now: float) -> Budget:
        if host not in self._opens and len(self._opens) >= MAX_HOSTS:
            del self._opens[next(iter(self._opens))]
        return self._opens.setdefault(host, Budget(OPENS_PER_S, OPENS_BURST, now))
