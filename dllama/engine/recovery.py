"""When a lost cluster is tried again, and when its sequences are given up. Reads no clock."""

from __future__ import annotations

FIRST_PAUSE_S = 0.5  # after the first attempt, which is made at once
MAX_PAUSE_S = 3.0
PAUSE_GROWTH = 1.6
DEFAULT_REJOIN_S = 3.0  # that a lost node has to come back, before it goes without it
DEFAULT_MAX_RECOVER_S = 120.0  # as clients and proxies wait a minute or two


class Recovery:
    """One recovery: attempts with growing pauses, without end. After `max_s` seconds what waits for
    it is given up."""

    def __init__(self, now_s: float, max_s: float) -> None:
        self._give_up_at_s = now_s + max_s
        self._attempt_at_s = now_s
        self._pause_s = FIRST_PAUSE_S
        self.has_given_up = False

    def due_in(self, now_s: float) -> float:
        """Seconds until the next attempt; 0 where it is due."""
        return max(0.0, self._attempt_at_s - now_s)

    def note_failure(self, now_s: float) -> None:
        """Records that an attempt has failed."""
        self._attempt_at_s = now_s + self._pause_s
        self._pause_s = min(self._pause_s * PAUSE_GROWTH, MAX_PAUSE_S)

    def must_give_up(self, now_s: float) -> bool:
        """Whether what waits is to be given up now: true once."""
        if self.has_given_up or now_s < self._give_up_at_s:
            return False
        self.has_given_up = True
        return True
