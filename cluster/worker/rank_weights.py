"""How a rank on a worker comes by its weights, and what it keeps of them on its disk."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from cluster.security.epoch_links import SessionLinks
from cluster.security.links import STORE
from cluster.sockets import Context
from cluster.weights.arriving import ArrivingTensors
from cluster.weights.exchange import PeerPieces, PieceServer
from cluster.weights.spares import SpareInbox
from cluster.weights.store import WeightStore
from cluster.wire.checks import check_manifest, check_peers, check_spares, check_tilings
from cluster.wire.messages import Chunk, Join, Load, Spares
from cluster.worker.root_link import RootLink
from cluster.worker.session_config import SessionConfig
from dllama.host.container import available_memory


class RankWeights:
    """The store of a session, and its links about it. `beat` is called while it waits."""

    def __init__(
        self, config: SessionConfig, context: Context, root: RootLink, beat: Callable[[], None]
    ) -> None:
        self._rank, self._root, self._beat = config.rank, root, beat
        self._store = WeightStore(Path(config.cache_dir), config.cache_bytes)
        self._spares = SpareInbox(self._store)
        self._server = PieceServer(context, config.host, config.epoch, self._store)
        self._peers = PeerPieces(context, config.epoch, beat)

    def bind(self, ports: Iterable[int], security: SessionLinks) -> int:
        """Listens for other ranks on the first free port and returns it. Raises ConfigError."""
        return self._server.bind(ports, security)

    def join(self, join: Join, security: SessionLinks) -> None:
        """Lets the other ranks in and connects to them. Raises ProtocolError."""
        check_peers(join.stores, len(join.peers))
        security.admit(STORE, join.keys)
        self._server.start()
        self._peers.connect(self._rank, join.stores, join.keys, security)

    def arriving(self, load: Load) -> ArrivingTensors:
        """Returns the tensors of a rank, to be taken one after the other. Raises ProtocolError."""
        check_manifest(load.manifest, available_memory())
        check_tilings(load.manifest, load.tilings, load.digests, available_memory())
        return ArrivingTensors(
            load, self._store, self._peers, lambda: self._root.expect(Chunk), self._root.send,
            self._beat,
        )  # fmt: skip

    def take_spares(self, message: Spares | Chunk) -> None:
        """Keeps what the root sends while there is nothing to compute. Raises ProtocolError."""
        if isinstance(message, Spares):
            check_spares(message, available_memory())
            self._root.send(self._spares.begin(message))
            return
        for answer in self._spares.take(message):
            self._root.send(answer)

    def tell(self) -> None:
        """Tells the root what has been written since."""
        for answer in self._spares.answers():
            self._root.send(answer)

    def close(self) -> None:
        self._spares.close()
        self._peers.close()
        self._server.close()
