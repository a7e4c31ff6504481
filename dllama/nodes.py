"""What a server asks of its engine about the nodes that compute, and what it is answered: plain
data, as in dllama/requests.py."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Annotated

from dllama.limits import Count, Id, MaxLength, Range

MAX_NODES = 1024
MAX_SENTENCE = 1 << 14  # characters: workers' own words are in some
Sentence = Annotated[str, MaxLength(MAX_SENTENCE)]


class NodesAction(StrEnum):
    LIST = "list"
    ADD = "add"
    REMOVE = "remove"


@dataclass(frozen=True, slots=True)
class NodesCall:
    """Asks for a NodesReply with the same id. `add` greets the worker at `address` and has it take
    `share` of the model in relation to the others, from the next session on; `remove` goes on
    without it and forgets it. Neither needs more than a pause between two steps."""

    id: Id
    action: NodesAction
    address: Id = ""
    share: float = 1.0


@dataclass(frozen=True, slots=True)
class NodeRow:
    """One node. `rank` is None while it computes nothing; `reason` then says why. Its part of the
    model is `kv_heads` and `hidden` columns of each layer. `rss_bytes` is the memory that its
    process takes, and `memory_bytes` what its machine has; both are None where they are unknown."""

    address: Annotated[str, MaxLength(1024)]  # a host's name, and the port
    state: Id  # of cluster.root.members.State
    share: float
    since_s: float  # how long it has been in this state
    reason: Sentence = ""
    rank: Annotated[int, Range(0, MAX_NODES)] | None = None
    kv_heads: Count = 0
    hidden: Count = 0
    rss_bytes: Count | None = None
    memory_bytes: Count | None = None


@dataclass(frozen=True, slots=True)
class NodesReply:
    """The nodes as they are now, the root first, or the reason of a failure (`error`)."""

    id: Id
    error: Sentence | None = None
    nodes: Annotated[list[NodeRow], MaxLength(MAX_NODES)] = field(default_factory=list)

    def unused(self) -> list[dict[str, object]]:
        """Returns the nodes that compute nothing now, and why, as GET /stats shows them."""
        return [
            {"address": row.address, "state": row.state, "reason": row.reason}
            for row in self.nodes
            if row.rank is None
        ]
