"""The nodes that a root knows, and which of them the next session may be planned over.

Knows no sockets and reads no clock. A node is lent to a cluster by a machine that may leave at any
time, so nothing here is an error: a node is present or it is not, and `reason` says why.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum

from cluster.sockets import Address
from dllama.errors import ConfigError

LOOK_EVERY_S = 1.0  # between two greetings of a node that is away
RECONSIDER_S = 10.0  # until a node that cannot be used is greeted again
HELLO_S = 1.0  # for the nodes of a lost session to answer, whatever rejoin_s is
STRANGER_HELLO_S = 0.3  # for the others, which are not waited for
FIRST_PENALTY_S = 2.0  # that a node waits which was lost twice; twice as long each time it is again
MAX_PENALTY_S = 120.0
DECAY_S = 30.0  # without a loss, until one loss is forgotten


class State(StrEnum):
    """The state of a node, as `dllama nodes list` shows it."""

    PRESENT = "present"  # it computes
    JOINING = "joining"  # it answers, and the next session is planned with it
    AWAY = "away"  # it does not answer, or was lost
    LEFT_OUT = "left out"  # it answers and cannot be used
    DRAINING = "draining"  # it computes until the next session


@dataclass(slots=True)
class Member:
    """One worker. `since` is when its state began; `reason` says why it is not present."""

    address: Address
    share: float
    state: State
    since: float
    reason: str = ""
    was_present: bool = False  # in the last session
    is_removed: bool = False  # forgotten as soon as it is in no session
    is_new: bool = False  # it was added, and not greeted yet
    is_needed: bool = False  # it drains, and the others have no room for its part
    losses: int = 0  # recent ones
    lost_at: float = float("-inf")
    look_at: float = float("-inf")

    def waits_until(self) -> float:
        """When it may be planned with again: a node that is lost again and again waits longer each
        time."""
        if self.losses < 2:
            return float("-inf")
        return self.lost_at + min(FIRST_PENALTY_S * 2.0 ** (self.losses - 2), MAX_PENALTY_S)

    def enter(self, state: State, now: float, reason: str = "") -> None:
        if self.state is not state:
            self.since = now
        self.state, self.reason, self.is_new = state, reason, False


class Members:
    """The workers of one root, in the order in which they were named."""

    def __init__(
        self, workers: Iterable[Address], shares: Iterable[float], rejoin_s: float, now: float
    ) -> None:
        self.rejoin_s = rejoin_s
        self._ended_at = now  # when the last session ended
        self._members = {
            address: Member(address, share, State.JOINING, now, was_present=True)
            for address, share in zip(workers, shares, strict=True)
        }

    def __iter__(self) -> Iterator[Member]:
        return iter(list(self._members.values()))

    def __contains__(self, address: Address) -> bool:
        return address in self._members

    def get(self, address: Address) -> Member | None:
        return self._members.get(address)

    # ---- what happens
    def began(self, addresses: Iterable[Address], now: float) -> None:
        """Records the nodes of a session that came up."""
        chosen = set(addresses)
        for member in self:
            if member.address in chosen:
                member.enter(State.PRESENT, now)
            elif member.is_removed:
                del self._members[member.address]
            elif member.state in (State.DRAINING, State.PRESENT):
                member.enter(State.AWAY, now, member.reason)
            elif member.state is State.JOINING:
                reason = member.reason or "it was lost a short while ago"
                member.enter(State.LEFT_OUT, now, reason)
            member.was_present = member.address in chosen
            member.is_needed = False

    def ended(self, now: float) -> None:
        """Records the end of a session, planned or not."""
        self._ended_at = now

    def lost(self, address: Address, reason: str, now: float, *, n_losses: int = 1) -> None:
        """Records that a node was lost; one that no session came up with counts for more."""
        member = self._members.get(address)
        if member is not None:
            forgotten = int((now - member.lost_at) // DECAY_S) if member.losses else 0
            member.losses = max(0, member.losses - forgotten) + n_losses
            member.lost_at = now
            member.enter(State.AWAY, now, reason)

    def silent(self, address: Address, reason: str, now: float) -> None:
        """Records that a node which is in no session does not answer, or refuses to."""
        member = self._members.get(address)
        if member is not None:
            member.enter(State.AWAY, now, reason)

    def joins(self, address: Address, now: float) -> None:
        """Records that a node answers, and that there is a use for it."""
        member = self._members.get(address)
        if member is not None:
            member.enter(State.JOINING, now)

    def left_out(self, address: Address, reason: str, now: float) -> None:
        """Records that a node answers and cannot be used."""
        member = self._members.get(address)
        if member is not None:
            member.enter(State.LEFT_OUT, now, reason)
            member.look_at = now + RECONSIDER_S

    def drains(self, address: Address, reason: str, now: float, *, is_needed: bool) -> None:
        """Records that a node of this session wants to leave."""
        member = self._members.get(address)
        if member is not None:
            member.enter(State.DRAINING, now, reason)
            member.is_needed = is_needed

    # ---- what is asked for
    def add(self, address: Address, share: float, now: float) -> None:
        """Adds a node, which is then looked for. Raises ConfigError where it is known already."""
        known = self._members.get(address)
        if known is not None and not known.is_removed:
            raise ConfigError(
                f"the worker {address} is known already and is {known.state}"
                + f": {known.reason}" * bool(known.reason)
            )
        if known is not None and known.was_present:
            known.is_removed, known.share = False, share
            known.enter(State.PRESENT, now)
            return
        self._members[address] = Member(
            address, share, State.AWAY, now, "it was not greeted yet", is_new=True
        )

    def remove(self, address: Address, now: float) -> None:
        """Forgets a node: at once where it is in no session. Raises ConfigError for an unknown."""
        member = self._members.get(address)
        if member is None:
            known = ", ".join(str(m.address) for m in self) or "none"
            raise ConfigError(f"there is no worker {address}; the workers are: {known}")
        if member.state in (State.PRESENT, State.DRAINING):
            member.is_removed = True
            member.enter(State.DRAINING, now, "it was removed by hand")
        else:
            del self._members[address]

    # ---- what to do
    def patience(self, address: Address, begun_at: float) -> float:
        """Returns until when a node is waited for that does not answer, since `begun_at`."""
        member = self._members[address]
        joins = member.state is State.JOINING and not member.was_present
        if member.is_new or joins:  # one that joins has answered a moment ago
            return begun_at + HELLO_S
        if not member.was_present or member.is_removed:
            return begun_at + STRANGER_HELLO_S
        if member.state is State.AWAY:
            return self._ended_at + self.rejoin_s
        if member.state is State.DRAINING:
            return begun_at
        return max(begun_at + HELLO_S, self._ended_at + self.rejoin_s)

    def preferred(self, answering: Iterable[Address], now: float) -> list[list[Address]]:
        """Returns the nodes to plan over among those that answer, best choice first: those that
        were lost again and again are used only where it does not go without them."""
        usable = [m for m in self if m.address in set(answering) and not m.is_removed]
        settled = [m.address for m in usable if m.waits_until() <= now]
        every = [m.address for m in usable]
        return [settled] if settled == every else [settled, every]

    def due_looks(self, now: float) -> list[Address]:
        """Returns the nodes to greet now because they are not in use, each once in a while."""
        due = [
            m
            for m in self
            if m.state in (State.AWAY, State.LEFT_OUT) and max(m.look_at, m.waits_until()) <= now
        ]
        for member in due:
            member.look_at = now + LOOK_EVERY_S
        return [member.address for member in due]

    def change(self) -> str | None:
        """Returns a sentence where another session would have other nodes than this one."""
        for member in self:
            if member.state is State.JOINING:
                return f"worker {member.address} is there and can compute"
            if member.state is State.DRAINING and not member.is_needed:
                return f"worker {member.address} leaves: {member.reason}"
        return None
