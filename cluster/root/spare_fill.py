"""Sends workers what they will need if another one is lost, while there is nothing to compute: a
new plan then finds its weights on their disks."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence

import numpy as np

from cluster.feed import RankFeed
from cluster.root.worker_links import WorkerLinks
from cluster.weights.digests import PieceDigests
from cluster.wire.messages import Spares
from dllama.sharding.losses import SpareNeed, needs_after_losses
from dllama.weight_source import WeightSource

log = logging.getLogger(__name__)

CHUNK_BYTES = 256 << 10
TURN_BYTES = 2 << 20  # in one turn: with ten turns a second, 20 MB/s, and 17 ms of 1 Gbit/s


class SpareFill:
    """The background fill of one session: `turn` is called while no sequence runs.

    It goes through the losses one after the other; a worker has the pieces for one before it hears
    of the next.
    """

    def __init__(
        self,
        source: WeightSource,
        digests: PieceDigests,
        links: WorkerLinks,
        shares: Sequence[float],
    ) -> None:
        self._source, self._digests, self._links = source, digests, links
        self._needs: Iterator[SpareNeed] | None = needs_after_losses(
            source.config, source.tensors, shares
        )
        self._feed: RankFeed | None = None
        self._rank = 0  # whose feed it is
        self._spare_bytes: dict[int, int] = {}  # that are on workers, by rank

    @property
    def is_done(self) -> bool:
        """Whether all workers have what they may need, as far as they have room for it."""
        return self._needs is None

    def spare_bytes(self, rank: int) -> int:
        """Returns the bytes that a worker holds for later plans."""
        return self._spare_bytes.get(rank, 0)

    def turn(self) -> None:
        """Sends some chunks, or asks a worker what it lacks. Raises ProtocolError."""
        if self._feed is None:
            self._begin_next()
            return
        link = self._links.of_rank(self._rank)
        for numbers in link.take_wants():
            self._feed.want(numbers)
        if link.credits:
            self._feed.credit(link.credits)
            link.credits = 0
        for chunk in self._feed.next_chunks():
            link.tell_session(chunk)
        if self._feed.is_done:
            self._count(self._feed)
            self._feed = None

    def _begin_next(self) -> None:
        need = next(self._needs, None) if self._needs is not None else None
        if need is None:
            self._finish()
            return
        if not need.pieces:
            return
        self._rank = need.rank
        self._feed = RankFeed(
            self._source, need.pieces, window=TURN_BYTES // CHUNK_BYTES, chunk_bytes=CHUNK_BYTES
        )
        sizes = np.array([sized.n_bytes for sized in need.pieces], np.int32)
        spares = Spares(self._digests.of(self._feed.pieces), sizes)
        self._links.of_rank(need.rank).tell_session(spares)

    def _count(self, feed: RankFeed) -> None:
        held_bytes = feed.found_bytes + feed.sent_bytes
        self._spare_bytes[self._rank] = self.spare_bytes(self._rank) + held_bytes

    def _finish(self) -> None:
        if self._needs is not None:
            self._needs = None
            for link in self._links:
                log.info(
                    "worker %s holds %.0f MB of weights for the loss of another",
                    link.address,
                    self.spare_bytes(link.rank) / 1e6,
                )
