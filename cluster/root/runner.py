"""The Runner over a cluster: rank 0, and one session after another with the other ranks."""

from __future__ import annotations

import contextlib
import logging
import socket
import time
import uuid
from collections.abc import Callable, Iterator

import numpy as np

from cluster.feed import FeedProgress
from cluster.rank import LoadRank
from cluster.root.arranger_of import arranger_of
from cluster.root.comeback import Comeback, Opened
from cluster.root.fitting import Fitting
from cluster.root.members import Members
from cluster.root.node_calls import NodeCalls
from cluster.root.node_rows import node_rows, worker_rows
from cluster.root.opener import SessionOpener
from cluster.root.parts import RootParts
from cluster.root.roster import Roster
from cluster.root.scouts import Scouts, greeter
from cluster.root.session import ClusterSession
from cluster.root.session_plan import ClusterConfig
from cluster.weights.digests import PieceDigests
from cluster.weights.files import digests_folder
from dllama import __version__
from dllama.config import ModelConfig
from dllama.errors import ClusterError, ConfigError, PeerLost, SessionFileError
from dllama.host.container import available_memory
from dllama.kv import KvHeld, KvShift
from dllama.nodes import NodeRow, NodesCall, NodesReply
from dllama.runtime.embedding import EmbeddingTable
from dllama.runtime.meter import RankMeter
from dllama.step import LogitRow, Step
from dllama.weight_source import WeightSource
from dllama.windows import window_pages

log = logging.getLogger(__name__)


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
        self._config = config  # of the next session, once there was one
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
        self._fitting = Fitting(source, config)
        shares = config.checked_shares()[1:]
        members = Members(config.workers, shares, config.rejoin_s, time.monotonic())
        self._roster = Roster(
            members,
            self._fitting,
            Scouts(greeter(release, config.security)),
            config.n_pages,
            available_memory,
            arranger_of(self._parts),
        )
        self._opener = SessionOpener(self._parts, self._meter, self._fitting)
        self._comeback = Comeback(self._opener, self._roster)
        self._since = time.monotonic()  # when the session began, or its end
        self._calls = NodeCalls(members, self._roster.check_removal, socket.gethostname())

    @property
    def config(self) -> ModelConfig:
        return self._parts.source.config

    @property
    def n_pages(self) -> int:
        return self._config.n_pages

    @property
    def n_window_pages(self) -> int:
        return window_pages(self.config, self.n_pages, self._config.max_step_tokens)

    @property
    def weight_bytes(self) -> int:
        return self._session.weight_bytes if self._session is not None else 0

    def counters(self) -> dict[str, int]:
        return self._meter.counters()

    def forget_workers(self) -> None:
        """Removes all workers before start(needs_all=False), as if by hand: the root begins alone,
        and takes those that are added."""
        for member in self._roster.members:
            self._roster.members.remove(member.address, time.monotonic())

    def start(self, *, needs_all: bool = True) -> None:
        """Greets the workers, cuts the model, feeds it and waits until every rank can compute.
        Without `needs_all` it goes without those that do not answer, as after a loss.

        Raises ConfigError before anything is loaded where the model does not fit; ClusterError
        with a sentence that names the worker where one does not answer, refuses or fails.
        """
        if not needs_all:
            self._start_with_those_there()
            return
        timeout_s, config = self._config.hello_timeout_s, self._config
        session = self._opener.session(config)
        try:
            choice = self._roster.first(session.greet(timeout_s))
            if self._config.plans:
                config = self._opener.config_of(choice)
                session.close()
                session = self._opener.session(config)
                session.greet(timeout_s)
            self._opener.open(session, config)
        except BaseException:
            session.close()
            raise
        self._take(Opened(session, config, choice))
        if choice.left_out:
            self._tell()

    def _start_with_those_there(self) -> None:
        deadline = time.monotonic() + self._config.rejoin_s + self._config.hello_timeout_s
        self._roster.ended()
        while True:
            try:
                return self.recover()
            except PeerLost:
                if time.monotonic() > deadline:
                    raise

    def run(self, step: Step) -> list[LogitRow]:
        with self._ending_on_error() as session:  # after any, ranks are in the middle of a step
            return session.run(step)

    def shift(self, shift: KvShift) -> None:
        with self._ending_on_error() as session:
            session.kv.shift(shift)

    @property
    def fingerprint(self) -> bytes:
        with self._ending_on_error() as session:
            return session.kv.fingerprint

    def save_kv(self, name: str, held: KvHeld, stamp: bytes) -> int:
        with self._ending_on_error() as session:
            return session.kv.move(True, name, held, stamp)

    def load_kv(self, name: str, held: KvHeld, stamp: bytes) -> int:
        with self._ending_on_error() as session:
            return session.kv.move(False, name, held, stamp)

    @property
    def hidden(self) -> np.ndarray:
        assert self._opener.own is not None, "start() comes first"
        return self._opener.own.rank.hidden

    def idle(self) -> None:
        with self._ending_on_error() as session:
            session.idle()
            session.weights.fill()

    @property
    def pending_change(self) -> str | None:
        if self._session is None:
            return None
        self._roster.look(self._session, self._opener.held(self._session))
        return self._roster.members.change()

    def recover(self) -> None:
        """Comes up with the nodes that are there; see Runner. A node that was lost is waited for
        until `rejoin_s` after the loss."""
        self._end_session()
        try:
            self._take(self._comeback.attempt())
        except PeerLost:
            raise
        except (ClusterError, ConfigError) as error:
            raise PeerLost(str(error), rank=0, host=socket.gethostname()) from error
        self._tell()

    def _take(self, opened: Opened) -> None:
        """Goes on with a session."""
        self._session, self._config, choice = opened
        self._since = time.monotonic()
        self._roster.began(choice)

    def _tell(self) -> None:
        workers = self._config.workers
        names = ", ".join(map(str, workers)) or "no worker"
        log.warning("%d ranks compute now: the root and %s", self._config.world_size, names)
        for member in self._roster.members:
            if member.address not in workers:
                log.warning("worker %s is %s: %s", member.address, member.state, member.reason)

    def nodes(self, call: NodesCall) -> NodesReply | None:
        return self._calls.take(call, self._node_rows, time.monotonic())

    def node_replies(self) -> list[NodesReply]:
        return self._calls.settled(self._node_rows, time.monotonic())

    def stats(self) -> list[dict[str, object]]:
        session = self._session
        if session is None:
            return []
        return worker_rows(session, self._config.threads, self._roster.prediction())

    def _node_rows(self) -> list[NodeRow]:
        share = self._fitting.root_share
        return node_rows(self._roster.members, self._session, share, self._since, time.monotonic())

    def close(self) -> None:
        """Ends the sessions on all workers, which go back to waiting."""
        self._end_session()
        self._comeback.drop()
        self._roster.close()
        self._parts.digests.close()
        self._opener.close()

    @contextlib.contextmanager
    def _ending_on_error(self) -> Iterator[ClusterSession]:
        """Yields the session that is alive, and ends it where the body raises anything but
        SessionFileError, after which all ranks have answered."""
        if self._session is None:
            raise PeerLost(
                "the cluster is down since it lost a worker; recover() brings it back",
                rank=0,
                host=socket.gethostname(),
            )
        try:
            yield self._session
        except SessionFileError:
            raise
        except BaseException as error:
            if isinstance(error, PeerLost):
                self._roster.lost(error, self._config.workers)
            self._end_session()
            raise

    def _end_session(self) -> None:
        if self._session is not None:
            self._opener.end(self._session)
            self._session, self._since = None, time.monotonic()
            self._roster.ended()
