"""The weights of one session: each worker gets the pieces that it lacks, while the root packs its
own share, and later, while there is nothing to compute, those that it may need after a loss."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence

import numpy as np

from cluster.feed import Feeder, RankFeed
from cluster.rank import Rank
from cluster.root.parts import RootParts
from cluster.root.spare_fill import SpareFill
from cluster.root.worker_links import POLL_MS, WorkerLinks
from cluster.wire.messages import Load, Loaded
from dllama.errors import ClusterError
from dllama.sharding.cut import cut_tensors
from dllama.sharding.pieces import TiledCut, tiled_cuts
from dllama.sharding.plan import Shard
from dllama.sharding.units import units_of
from dllama.weight_source import TensorFeed, TensorInfo
from kernels.matmul.sums import Kind

log = logging.getLogger(__name__)


class SessionWeights:
    """Loads all ranks of a session, and fills the workers' disks in the background."""

    def __init__(self, parts: RootParts, links: WorkerLinks) -> None:
        self._parts, self._links = parts, links
        self._units = units_of(parts.source.config, parts.source.tensors)
        self.own: Rank | None = None  # rank 0, as soon as it is there
        self._loaded: dict[int, Loaded] = {}  # by rank
        self._fill: SpareFill | None = None

    def load(self, shards: Sequence[Shard], kind: Kind, own_rank: Rank | None) -> Rank:
        """Brings the weights to all workers, and loads rank 0 where `own_rank` is None: one that
        makes sums of this kind, as all others do. Rank 0 is kept in `own` whatever becomes of the
        others, but where the file is another one now.

        Raises PeerLost; ClusterError where the model file is not what its digests say.
        """
        parts = self._parts
        feeder = self._begin(shards)
        self.own = rank = own_rank or self._load_own(feeder, shards[0], kind)
        while len(self._loaded) < len(shards) - 1:
            self._turn(feeder, POLL_MS)
        self._tell(feeder)
        parts.source.drop_kept()
        if any(loaded.n_wrong for loaded in self._loaded.values()):
            parts.digests.forget()
            self.own = None  # it may hold weights of both files
            rank.close()
            raise ClusterError(
                "the model file is not what it was when it was hashed: it was written while it was "
                "in use; the hashes are dropped, so start again once the file is whole"
            )
        self._fill = SpareFill(
            parts.source, parts.digests, self._links, parts.config.checked_shares()
        )
        return rank

    def fill(self) -> None:
        """Goes on with the background fill; called while no sequence runs. Raises ProtocolError,
        PeerLost."""
        if self._fill is not None:
            self._fill.turn()

    @property
    def is_filled(self) -> bool:
        """Whether the workers have what they may need after a loss, as far as they have room."""
        return self._fill is not None and self._fill.is_done

    def row(self, rank: int) -> dict[str, int | bool]:
        """Returns how a rank came by its weights, for GET /stats; rank 0 has the file."""
        loaded = self._loaded.get(rank, Loaded())
        return {
            "found_bytes": loaded.found_bytes,
            "fetched_bytes": loaded.fetched_bytes,
            "received_bytes": loaded.received_bytes,
            "spare_bytes": self._fill.spare_bytes(rank) if self._fill is not None else 0,
            "has_spares": self.is_filled,
        }

    def _begin(self, shards: Sequence[Shard]) -> Feeder:
        """Tells every worker what it is to load."""
        source = self._parts.source
        feeds = {}
        for link in self._links:
            shard = shards[link.rank]
            cuts = tiled_cuts(source.config, source.tensors, shard)
            feeds[link.rank] = RankFeed(source, [p for tiled in cuts for p in tiled.sized()])
            link.tell_session(self._load_message(shard, cuts))
        return Feeder(
            feeds,
            lambda rank, chunk: self._links.of_rank(rank).tell_session(chunk),
            self._parts.on_progress,
        )

    def _load_message(self, shard: Shard, cuts: Sequence[TiledCut]) -> Load:
        source, config = self._parts.source, self._parts.config
        return Load(
            source.config,
            [tiled.cut.info for tiled in cuts],
            [tiled.tiling for tiled in cuts],
            self._parts.digests.of([piece for tiled in cuts for piece in tiled.pieces()]),
            config.n_pages,
            config.kv_type,
            config.max_step_tokens,
            shard.vocab.start,
            self._units,
            self._parts.embedding.qtype,
        )

    def _load_own(self, feeder: Feeder, shard: Shard, kind: Kind) -> Rank:
        """Packs the root's share; between two tensors the others get what they have credit for."""
        source, config = self._parts.source, self._parts.config
        tensors = cut_tensors(source, shard)

        def pumped() -> Iterator[tuple[TensorInfo, np.ndarray]]:
            for tensor in tensors:
                self._turn(feeder, 0)
                yield tensor

        return self._parts.load_rank(
            source.config,
            TensorFeed(tensors.manifest, pumped()),
            n_pages=config.n_pages,
            max_step_tokens=config.max_step_tokens,
            n_threads=config.threads,
            vocab_start=shard.vocab.start,
            embed_qtype=self._parts.embedding.qtype,
            units=self._units,
            kind=kind,
            kv_type=config.kv_type,
            progress=None,
        )

    def _turn(self, feeder: Feeder, timeout_ms: int) -> None:
        feeder.pump()
        self._links.poll(timeout_ms)
        self._links.watch()
        for link in self._links:
            for numbers in link.take_wants():
                feeder.want(link.rank, numbers)
            if link.credits:
                feeder.credit(link.rank, link.credits)
                link.credits = 0
            loaded = link.answer(Loaded)
            if loaded is not None:
                self._loaded[link.rank] = loaded

    def _tell(self, feeder: Feeder) -> None:
        for link in self._links:
            loaded, n_again = self._loaded[link.rank], feeder.n_again(link.rank)
            if n_again:
                log.warning(
                    "%d pieces of weights for worker %s were damaged on a worker's disk, or did "
                    "not come from there, and were sent again; that worker's output says more",
                    n_again,
                    link.address,
                )
            log.info(
                "%.0f MB of weights sent, %.0f MB fetched from workers, %.0f MB found on worker %s",
                loaded.received_bytes / 1e6,
                loaded.fetched_bytes / 1e6,
                loaded.found_bytes / 1e6,
                link.address,
            )
