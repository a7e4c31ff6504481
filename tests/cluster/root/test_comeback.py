"""What becomes of a session that is prepared while a lost node is waited for."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from cluster.root.comeback import Comeback, Opened
from dllama.errors import ClusterError, PeerLost, ProtocolError


class Prepared:
    """A prepared session that fails while it is held, in place of the opener and the roster."""

    def __init__(self, error: ClusterError) -> None:
        self.error, self.ended, self.lost_nodes = error, 0, list[PeerLost]()
        self.session: Any = SimpleNamespace(idle=self.fail)
        own: Any = self
        self.comeback = Comeback(own, own)
        self.comeback._prepared = Opened(self.session, own, own)
        self.workers: list[object] = []

    def fail(self) -> None:
        raise self.error

    def still_waits(self, choice: object) -> bool:
        return True

    def end(self, session: object) -> None:
        assert session is self.session
        self.ended += 1

    def lost(self, error: PeerLost, workers: object) -> None:
        self.lost_nodes.append(error)


@pytest.mark.parametrize(
    "error", [PeerLost("gone", rank=1, host="a"), ProtocolError("what is this"), ClusterError("no")]
)
def test_a_prepared_session_that_failed_is_not_gone_on_with(error: ClusterError) -> None:
    prepared = Prepared(error)
    with pytest.raises(type(error)):
        prepared.comeback.attempt()
    assert prepared.ended == 1 and prepared.comeback._prepared is None
    assert prepared.lost_nodes == ([error] if isinstance(error, PeerLost) else [])
