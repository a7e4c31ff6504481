"""Nodes are added and removed by hand: what is asked for is checked at once, and answered when it
has come about. Knows no sockets and reads no clock."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

from cluster.root.members import Members, State
from cluster.sockets import Address, parse_address
from dllama.errors import ConfigError
from dllama.nodes import MAX_SENTENCE, NodeRow, NodesAction, NodesCall, NodesReply

MAX_WAITING = 64  # calls that are not answered yet
Rows = Callable[[], list[NodeRow]]


class Settled(NamedTuple):
    """Whether a call has come to its end, and the sentence where that is a failure."""

    is_settled: bool
    error: str | None = None


class NodeCalls:
    """The calls of the root that is called `root_name`. `check_removal` raises ConfigError where
    the others cannot go on without a node. `rows` returns the nodes as they are."""

    def __init__(
        self, members: Members, check_removal: Callable[[Address], None], root_name: str
    ) -> None:
        self._members, self._check_removal = members, check_removal
        self._root_name = root_name
        self._waiting: list[tuple[NodesCall, Address]] = []

    def take(self, call: NodesCall, rows: Rows, now: float) -> NodesReply | None:
        """Returns the reply, or None where it is among the `settled` ones later."""
        try:
            if call.action is NodesAction.LIST:
                return NodesReply(call.id, nodes=rows())
            address = parse_address(call.address)
            if len(self._waiting) >= MAX_WAITING:
                raise ConfigError(
                    f"{MAX_WAITING} changes of the nodes are under way; ask again when they are "
                    "done"
                )
            if call.action is NodesAction.ADD:
                self._add(address, call.share, now)
            else:
                self._remove(address, now)
            self._waiting.append((call, address))
        except ConfigError as error:
            return NodesReply(call.id, error=str(error)[:MAX_SENTENCE])
        return None

    def settled(self, rows: Rows, now: float) -> list[NodesReply]:
        """Returns the replies of calls that have come about, or never will, since the last time. A
        node that was added and cannot be used is forgotten."""
        replies, waiting = [], []
        for call, address in self._waiting:
            settle = self._added if call.action is NodesAction.ADD else self._removed
            is_settled, error = settle(address, now)
            if not is_settled:
                waiting.append((call, address))
            elif error is None:
                replies.append(NodesReply(call.id, nodes=rows()))
            else:
                replies.append(NodesReply(call.id, error=error[:MAX_SENTENCE]))
        self._waiting = waiting
        return replies

    def _add(self, address: Address, share: float, now: float) -> None:
        if not math.isfinite(share) or share <= 0.0:
            raise ConfigError(f"the share of a node must be a positive number, but is {share:g}")
        self._members.add(address, share, now)

    def _remove(self, address: Address, now: float) -> None:
        if address.host == self._root_name and address not in self._members:
            raise ConfigError(
                f"{address.host} is the root, which serves and computes itself and cannot be "
                "removed; name one of the workers, which dllama nodes list shows below it"
            )
        self._check_removal(address)
        self._members.remove(address, now)

    def _added(self, address: Address, now: float) -> Settled:
        member = self._members.get(address)
        if member is None or member.is_removed:
            return Settled(True, f"the worker {address} was removed meanwhile")
        if member.is_new:
            return Settled(False)
        if member.state in (State.AWAY, State.LEFT_OUT):
            self._members.remove(address, now)
            return Settled(True, f"the worker {address} was not added: {member.reason}")
        return Settled(True)

    def _removed(self, address: Address, now: float) -> Settled:
        member = self._members.get(address)
        if member is None:
            return Settled(True)
        if not member.is_removed:
            return Settled(True, f"the worker {address} was added again meanwhile")
        return Settled(False)
