"""Decides whose connections stay: so many in all and an address, and who makes room for whom.
Knows no sockets; the clock is an argument."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from cluster.sockets import is_loopback

MAX_ADDRESSES = 4_096  # that are remembered for their offences


@dataclass(frozen=True, slots=True)
class GuestLimits:
    """The limits of one port."""

    max_connections: int = 256
    max_per_address: int = 128  # several roots may stand behind one address
    max_offences: int = 32  # of an address, less one for each second that passes
    cut_off_s: float = 10.0


@dataclass(slots=True)
class Offences:
    """What an address has done of late: `points` as of `at`; nothing of it is let in before
    `until`."""

    points: float
    at: float
    until: float = 0.0


class Guests:
    """The connections of one port, by number. `trusted` are those of roots that have sessions."""

    def __init__(self, limits: GuestLimits) -> None:
        self.trusted: frozenset[int] = frozenset()
        self._limits = limits
        self._guests: dict[int, str] = {}  # their addresses, the oldest connection first
        self._offences: dict[str, Offences] = {}

    def __len__(self) -> int:
        return len(self._guests)

    def is_cut_off(self, address: str, now: float) -> bool:
        """Returns whether nothing of an address is let in for now."""
        offences = self._offences.get(address)
        return offences is not None and now < offences.until

    def enter(self, number: int, address: str) -> int | None:
        """Lets a connection in, and returns the number of the one that has to go for it: None where
        there is room, its own where nobody makes any."""
        self._guests[number] = address
        limits = self._limits
        n_of_address = sum(other == address for other in self._guests.values())
        if n_of_address > limits.max_per_address:
            return self._oldest_stranger(address)
        if len(self._guests) > limits.max_connections:
            return self.least_wanted()
        return None

    def least_wanted(self) -> int | None:
        """Returns the oldest connection that nobody has trusted, of the address that has most of
        those; None without any."""
        strangers = Counter(a for n, a in self._guests.items() if n not in self.trusted)
        if not strangers:
            return None
        return self._oldest_stranger(strangers.most_common(1)[0][0])

    def leave(self, number: int) -> None:
        self._guests.pop(number, None)

    def offend(self, address: str, now: float) -> bool:
        """Records something that no peer of ours does; returns whether the address is cut off from
        now on. This machine's own address never is: roots of this machine share it."""
        offences = self._offences.pop(address, None) or Offences(0.0, now)
        offences.points = max(0.0, offences.points - (now - offences.at)) + 1.0
        offences.at = now
        self._offences[address] = offences  # the last of the table: the first one is the stalest
        if len(self._offences) > MAX_ADDRESSES:
            del self._offences[next(iter(self._offences))]
        if offences.points <= self._limits.max_offences or is_loopback(address):
            return False
        offences.points, offences.until = 0.0, now + self._limits.cut_off_s
        return True

    def _oldest_stranger(self, address: str) -> int:
        """Returns the oldest untrusted connection of an address; its youngest where all are
        trusted."""
        numbers = [n for n, other in self._guests.items() if other == address]
        strangers = (n for n in numbers if n not in self.trusted)
        return next(strangers, numbers[-1])
