"""What runners of tests have in common whose nodes never change."""

from __future__ import annotations

from dllama.nodes import NodesCall, NodesReply


class FixedNodes:
    """The part of a Runner that is asked about its nodes: it names none, and changes none."""

    def nodes(self, call: NodesCall) -> NodesReply | None:
        return NodesReply(call.id)

    def node_replies(self) -> list[NodesReply]:
        return []
