"""The Runner over a cluster: rank 0, and one session after another with the other ranks."""

from __future__ import annotations

import logging
import socket
import uuid
from collections.abc import Callable, Sequence

import numpy as np

from cluster.feed import FeedProgress
from cluster.rank import LoadRank, Rank
from cluster.root.parts import RootParts
from cluster.root.session import ClusterSession
from cluster.root.session_plan import ClusterConfig
from cluster.weights.digests import PieceDigests
from cluster.weights.files import digests_folder
from dllama import __version__
from dllama.config import ModelConfig
from dllama.errors import ClusterError, ConfigError, PeerLost, SessionFileError
from dllama.host.descriptors import check_free
from dllama.kv import KvShift
from dllama.runtime.embedding import EmbeddingTable
from dllama.runtime.meter import RankIdentity, RankMeter, rss_bytes, stats_row
from dllama.step import LogitRow, Step
from dllama.weight_source import WeightSource
from kernels.cpu import isa

log = logging.getLogger(__name__)

RECOVER_HELLO_S = 2.0  # a recovery that reaches no worker is tried again soon


class ClusterRunner:
    """Computes steps on the root and its workers; see dllama.runner.Runner.

    `start()` brings the cluster up and has to come first; the source stays open until close().
    `on_progress` is called as workers take in weights.
    """

    def __init__(
        self,
        source: WeightSource,
        config: ClusterConfig,
        load_rank: LoadRank,
        *,
        on_progress: Callable[[FeedProgress], None] | None = None,
        release: str = __version__,
    ) -> None:
        if not config.workers:
            raise ConfigError("a cluster needs at least one worker (--workers)")
        self._config = config
        self._parts = RootParts(
            source,
            config,
            load_rank,
            EmbeddingTable(source),
            f"{socket.gethostname()}-{uuid.uuid4().hex}",
            release,
            on_progress,
            PieceDigests(source, digests_folder()),
        )
        self._meter = RankMeter()
        self._session: ClusterSession | None = None
        self._rank: Rank | None = None

    @property
    def config(self) -> ModelConfig:
        return self._parts.source.config

    @property
    def n_pages(self) -> int:
        return self._config.n_pages

    @property
    def weight_bytes(self) -> int:
        return self._session.weight_bytes if self._session is not None else 0

    def counters(self) -> dict[str, int]:
        return self._meter.counters()

    def start(self) -> None:
        """Greets the workers, cuts the model, feeds it and waits until every rank can compute.

        Raises ConfigError before anything is loaded where the model does not fit; ClusterError
        with a sentence that names the worker where one does not answer, refuses or fails.
        """
        self._open(self._config.hello_timeout_s)

    def run(self, step: Step) -> list[LogitRow]:
        session = self._living()
        try:
            return session.run(step)
        except BaseException:  # after any error, ranks are in the middle of a step
            self._end_session()
            raise

    def shift(self, shift: KvShift) -> None:
        session = self._living()
        try:
            session.kv.shift(shift)
        except BaseException:
            self._end_session()
            raise

    @property
    def fingerprint(self) -> bytes:
        return self._living().kv.fingerprint

    def save_kv(self, name: str, pages: Sequence[int], stamp: bytes) -> int:
        return self._move_kv(True, name, pages, stamp)

    def load_kv(self, name: str, pages: Sequence[int], stamp: bytes) -> int:
        return self._move_kv(False, name, pages, stamp)

    def _move_kv(self, is_save: bool, name: str, pages: Sequence[int], stamp: bytes) -> int:
        session = self._living()
        try:
            return session.kv.move(is_save, name, pages, stamp)
        except SessionFileError:
            raise  # all ranks have answered
        except BaseException:
            self._end_session()
            raise

    @property
    def hidden(self) -> np.ndarray:
        assert self._rank is not None, "start() comes first"
        return self._rank.hidden

    def idle(self) -> None:
        session = self._living()
        try:
            session.idle()
            session.weights.fill()
        except ClusterError:
            self._end_session()
            raise

    @property
    def pending_change(self) -> str | None:
        return None

    def recover(self) -> None:
        self._end_session()
        try:
            self._open(RECOVER_HELLO_S)
        except PeerLost:
            raise
        except (ClusterError, ConfigError) as error:
            raise PeerLost(str(error), rank=0, host=socket.gethostname()) from error
        log.info("the cluster is whole again: %d ranks", self._config.world_size)

    def stats(self) -> list[dict[str, object]]:
        session = self._session
        if session is None:
            return []
        hosts = [socket.gethostname(), *map(str, self._config.workers)]
        isas = [isa(), *(w.isa for w in session.welcomes)]
        threads = [self._config.threads, *(w.threads for w in session.welcomes)]
        identities = [
            RankIdentity(
                shard.rank, host, its_isa, n_threads, len(shard.kv_heads), len(shard.hidden)
            )
            for shard, host, its_isa, n_threads in zip(
                session.shards, hosts, isas, threads, strict=True
            )
        ]
        rss = [rss_bytes(), *(link.rss_bytes for link in session.links)]
        rows = [
            stats_row(identity, figures, n_bytes)
            for identity, figures, n_bytes in zip(
                identities, session.rank_figures(), rss, strict=True
            )
        ]
        for row, shard in zip(rows, session.shards, strict=True):
            row["weights"] = session.weights.row(shard.rank)
        return rows

    def close(self) -> None:
        """Ends the sessions on all workers, which go back to waiting."""
        self._end_session()
        self._parts.digests.close()
        if self._rank is not None:
            self._rank.close()
            self._rank = None

    def _open(self, hello_timeout_s: float) -> None:
        n_workers = len(self._config.workers)
        check_free(16 + 12 * n_workers, f"a cluster of {n_workers + 1} machines")
        session = ClusterSession(self._parts, self._meter)
        try:
            self._rank = session.open(self._rank, hello_timeout_s)
        except BaseException:
            session.close()
            raise
        self._meter.forget_steps()  # those of an earlier session: the other ranks begin anew too
        self._session = session

    def _living(self) -> ClusterSession:
        if self._session is None:
            raise PeerLost(
                "the cluster is down since it lost a worker; recover() brings it back",
                rank=0,
                host=socket.gethostname(),
            )
        return self._session

    def _end_session(self) -> None:
        if self._session is not None:
            self._session.close()
            self._session = None
