"""A whole transfer of weights from a root to a rank, without sockets."""

from __future__ import annotations

from collections import deque
from pathlib import Path

import numpy as np
import zmq

from cluster.feed import RankFeed
from cluster.weights.arriving import ArrivingTensors
from cluster.weights.digests import PieceDigests
from cluster.weights.exchange import PeerPieces
from cluster.weights.store import WeightStore
from cluster.wire.checks import check_tilings
from cluster.wire.messages import Chunk, Credit, Load, Loaded, Message, Want, pack, unpack
from dllama.kv_type import KvType
from dllama.qtypes import QType
from dllama.sharding.pieces import tiled_cuts
from dllama.sharding.plan import Shard
from dllama.sharding.units import units_of
from dllama.weight_source import TensorInfo, WeightSource

NO_PEERS = PeerPieces(zmq.Context(), 0, lambda: None)
NO_STORE = WeightStore(Path("/nowhere"), 0)


class Transfer:
    """One rank that loads, and the feed that serves it. Messages cross the codec."""

    def __init__(
        self, source: WeightSource, shard: Shard, store: WeightStore = NO_STORE,
        digests: PieceDigests | None = None,
    ) -> None:  # fmt: skip
        cuts = tiled_cuts(source.config, source.tensors, shard)
        self.feed = RankFeed(source, [sized for tiled in cuts for sized in tiled.sized()])
        known = digests or PieceDigests(source, None)
        manifest, tilings = [c.cut.info for c in cuts], [c.tiling for c in cuts]
        load = Load(
            source.config, manifest, tilings, known.of(self.feed.pieces), 8, KvType.F16, 64, 0,
            units_of(source.config, source.tensors), QType.F32,
        )  # fmt: skip
        check_tilings(load.manifest, load.tilings, load.digests, 1 << 40)
        self.sent: deque[Chunk] = deque()
        self.wants: list[list[int]] = []
        self.most_in_flight = self.n_beats = self.n_chunks = 0
        self.rank = ArrivingTensors(load, store, NO_PEERS, self.next_chunk, self.hear, self.beat)

    def next_chunk(self) -> Chunk:
        self.sent.extend(self.feed.next_chunks())
        self.most_in_flight = max(self.most_in_flight, len(self.sent))
        _, chunk = unpack([bytes(frame) for frame in pack(self.sent.popleft())])
        assert isinstance(chunk, Chunk)
        self.n_chunks += 1
        return chunk

    def beat(self) -> None:
        self.n_beats += 1

    def hear(self, message: Message) -> None:
        if isinstance(message, Want):
            self.wants.append(message.pieces.tolist())
            self.feed.want(self.wants[-1])
        else:
            assert isinstance(message, Credit)
            self.feed.credit(message.chunks)

    def load(self) -> list[tuple[TensorInfo, np.ndarray]]:
        """Copies of all tensors, as they arrived."""
        return [(info, array.copy()) for info, array in self.rank.tensors()]


def transferred(
    source: WeightSource, shard: Shard, store: WeightStore = NO_STORE,
    digests: PieceDigests | None = None,
) -> tuple[list[tuple[TensorInfo, np.ndarray]], Loaded]:  # fmt: skip
    """Loads a rank; returns its tensors and what it says of them."""
    transfer = Transfer(source, shard, store, digests)
    tensors = transfer.load()
    assert transfer.feed.is_done and not transfer.sent
    return tensors, transfer.rank.loaded()
