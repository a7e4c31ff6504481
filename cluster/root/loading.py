"""Loads all ranks of a session: each worker gets the pieces that it lacks, and the root packs its
own share between two turns of that."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from cluster.feed import Feeder, FeedProgress, RankFeed
from cluster.root.worker_links import POLL_MS, WorkerLinks
from cluster.weights.digests import PieceDigests
from cluster.wire.messages import Load, Loaded
from dllama.errors import ClusterError
from dllama.sharding.pieces import Tiling, tiled_cuts
from dllama.sharding.plan import Shard
from dllama.weight_source import TensorFeed, TensorInfo, WeightSource

log = logging.getLogger(__name__)

MakeLoad = Callable[[Shard, list[TensorInfo], list[Tiling], np.ndarray], Load]
"""Makes a rank's Load of its shard, manifest and tilings, and the digests of all its pieces."""


class Loading:
    """The feeds of one session, from its Load messages to the last Loaded."""

    def __init__(
        self,
        source: WeightSource,
        digests: PieceDigests,
        links: WorkerLinks,
        on_progress: Callable[[FeedProgress], None] | None,
    ) -> None:
        self._source, self._digests, self._links = source, digests, links
        self._on_progress = on_progress
        self._loaded: dict[int, Loaded] = {}  # by rank

    def begin(self, shards: Sequence[Shard], make_load: MakeLoad) -> None:
        """Tells every worker what it is to load."""
        feeds = {}
        for link in self._links:
            cuts = tiled_cuts(self._source.config, self._source.tensors, shards[link.rank])
            feed = feeds[link.rank] = RankFeed(self._source, cuts)
            manifest = [tiled.cut.info for tiled in cuts]
            tilings = [tiled.tiling for tiled in cuts]
            digests = self._digests.of(feed.pieces)
            link.tell_session(make_load(shards[link.rank], manifest, tilings, digests))
        self._feeder = Feeder(
            feeds, lambda rank, chunk: self._links.of_rank(rank).tell_session(chunk),
            self._on_progress,
        )  # fmt: skip

    def pumped(self, tensors: TensorFeed) -> TensorFeed:
        """The root's own tensors; before each, the others get what they have credit for."""

        def arrays() -> Iterator[tuple[TensorInfo, np.ndarray]]:
            for tensor in tensors:
                self._turn(0)
                yield tensor

        return TensorFeed(tensors.manifest, arrays())

    def finish(self) -> dict[int, Loaded]:
        """Waits until every worker is loaded, and returns what each said.

        Raises PeerLost; ClusterError where the model file is not what its digests say.
        """
        while len(self._loaded) < sum(1 for _ in self._links):
            self._turn(POLL_MS)
        for link in self._links:
            loaded = self._loaded[link.rank]
            log.info(
                "%.0f MB of weights sent, %.0f MB found on worker %s",
                loaded.received_bytes / 1e6,
                loaded.found_bytes / 1e6,
                link.address,
            )
        if any(loaded.n_wrong for loaded in self._loaded.values()):
            self._digests.forget()
            raise ClusterError(
                "the model file is not what it was when it was hashed: it was written while it was "
                "in use; the hashes are dropped, so start again once the file is whole"
            )
        return self._loaded

    def _turn(self, timeout_ms: int) -> None:
        self._feeder.pump()
        self._links.poll(timeout_ms)
        self._links.watch()
        for link in self._links:
            for numbers in link.take_wants():
                self._feeder.want(link.rank, numbers)
            if link.credits:
                self._feeder.credit(link.rank, link.credits)
                link.credits = 0
            loaded = link.answer(Loaded)
            if loaded is not None:
                self._loaded[link.rank] = loaded
