"""One life of a cluster, from hello to the first lost peer: all state that belongs to its epoch.

One thread. While it waits it reads what daemons and ranks have said; a worker that failed, fell
silent, stands still or cut a link is a PeerLost, and the session is then over.
"""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Sequence

import zmq

from cluster.mesh.collective import MeshCollective
from cluster.rank import Rank
from cluster.root.kv_broadcast import KvBroadcast
from cluster.root.meeting import Meeting
from cluster.root.parts import RootParts
from cluster.root.session_plan import warm_up_steps
from cluster.root.session_weights import SessionWeights
from cluster.root.worker_links import POLL_MS, WorkerLinks
from cluster.sockets import Context
from cluster.wire.messages import RankStats, StatsCall, StepCall, Welcome, pack
from cluster.wire.step_checks import KvRoom
from dllama.collective import Collective, SoloCollective
from dllama.runtime.meter import RankFigures, RankMeter
from dllama.sharding.cut import cut_manifest
from dllama.sharding.memory import memory_needed
from dllama.sharding.plan import Shard, plan_for
from dllama.step import LogitRow, Step
from dllama.weight_source import TensorInfo
from kernels.matmul.sums import Kind

log = logging.getLogger(__name__)

STATS_TIMEOUT_S = 0.5
CHECK_S = 0.25  # between two checks on the workers while short steps follow one another


class ClusterSession:
    """The links, the mesh and the steps of one epoch."""

    def __init__(self, parts: RootParts, meter: RankMeter) -> None:
        self.epoch = secrets.randbits(62) + 1  # unguessable: it is what admits a message
        self.shards: list[Shard] = []
        self.welcomes: list[Welcome] = []
        self._meter = meter
        self._parts = parts
        self._context: Context = zmq.Context()
        self.links = WorkerLinks(
            parts.config.workers, self._context, parts.release, parts.config.security
        )
        self._meeting = Meeting(parts.config, parts.root, self.links, self._context, self.epoch)
        self._alone = SoloCollective()  # one for all steps: replayed ones belong to it
        self._checked_at = 0.0
        self._kv: KvBroadcast | None = None
        self._manifests: list[list[TensorInfo]] = []
        self.weights = SessionWeights(parts, self.links)

    # ---- coming up
    def greet(self, timeout_s: float) -> list[Welcome]:
        """Greets the workers and returns what they are. Raises ConfigError, PeerLost,
        ProtocolError."""
        self._parts.digests.begin()  # computed while the workers start
        self.welcomes = self.links.greet(timeout_s)
        self._sync_type = self.links.common_sync_type(self._parts.config.sync_type)
        return self.welcomes

    @property
    def kind(self) -> Kind:
        """The sums that all ranks make, known after `greet`: what was asked for, or what all can
        make."""
        return self._sync_type.kind(self._parts.config.world_size)

    @property
    def own_rank(self) -> Rank | None:
        """Rank 0, from when it is loaded on. It outlives the session, and an `open` that fails."""
        return self.weights.own

    def open(self, own_rank: Rank | None) -> None:
        """Brings the ranks up that were greeted; `own_rank` is rank 0 of an earlier session that
        had the same shard and kind of sums.

        Raises ConfigError (shares), ClusterError, ProtocolError, PeerLost.
        """
        config = self._parts.config
        self._plan()
        self._meeting.open(self.welcomes, self._sync_type, self._needed)
        self.links.also_watch = self._mesh.links.check  # a frozen process is seen by them too
        self.links.limit_hangs(config.load_hang_timeout_s)
        with self.links.explained():
            rank = self.weights.load(self.shards, self.kind, own_rank)
        self._kv = KvBroadcast(
            self.links, self.epoch, rank, self.shards, self._parts.source,
            KvRoom.of(self._parts.source.config, config.n_pages, config.max_step_tokens),
            config.kv_dir,
        )  # fmt: skip
        if config.warm_up:
            max_seq_len = self._parts.source.config.max_seq_len
            for step in warm_up_steps(config.max_step_tokens, config.n_pages, max_seq_len):
                self._compute(step, is_warm_up=True)
        self.links.limit_hangs(config.hang_timeout_s)

    @property
    def _mesh(self) -> MeshCollective:
        return self._meeting.mesh

    def _plan(self) -> None:
        source, config = self._parts.source, self._parts.config
        self.shards = plan_for(source.config, source.tensors, config.checked_shares())
        self._manifests = [
            [cut.info for cut in cut_manifest(source.config, source.tensors, shard)]
            for shard in self.shards
        ]
        self._needed = [
            memory_needed(
                source.config,
                source.tensors,
                shard,
                n_pages=config.n_pages,
                max_step_tokens=config.max_step_tokens,
                kv_type=config.kv_type,
            )
            for shard in self.shards
        ]

    # ---- at work
    def run(self, step: Step) -> list[LogitRow]:
        """Runs one step on all ranks."""
        if time.monotonic() - self._checked_at > CHECK_S:
            self.idle()
        started = time.perf_counter_ns()
        before = self._mesh.times
        logits = self._compute(step)
        elapsed = time.perf_counter_ns() - started
        self._meter.add(step, elapsed, before, self._mesh.times)
        return logits

    def _compute(self, step: Step, *, is_warm_up: bool = False) -> list[LogitRow]:
        rank = self.own_rank
        assert rank is not None, "open() comes first"
        rows = self._parts.embedding.rows(step.tokens)
        frames = pack(StepCall(step, rows, is_warm_up), self.epoch)
        with self.links.explained():
            for link in self.links:
                link.send_session(frames)
            self._mesh.begin_step()
            comm: Collective = self._mesh if self._parts.config.workers else self._alone
            logits = rank.forward(step, rows, comm)
        assert logits is not None, "this is rank 0"
        return logits

    def held(self) -> dict[str, int]:
        """Returns the bytes that the workers' ranks take of each machine."""
        held: dict[str, int] = {}
        for link, welcome in zip(self.links, self.welcomes, strict=True):
            held[welcome.machine] = held.get(welcome.machine, 0) + link.rss_bytes
        return held

    @property
    def kv(self) -> KvBroadcast:
        assert self._kv is not None, "open() comes first"
        return self._kv

    @property
    def weight_bytes(self) -> int:
        """Bytes of weights that one token reads, on all ranks."""
        return sum(self._read_bytes(manifest) for manifest in self._manifests)

    def _read_bytes(self, manifest: Sequence[TensorInfo]) -> int:
        return sum(info.read_bytes(self._parts.source.config) for info in manifest)

    def idle(self) -> None:
        """Checks the workers and the links of the mesh. Raises PeerLost."""
        self._checked_at = time.monotonic()
        if not self._parts.config.workers:
            return
        with self.links.explained():
            self.links.watch()
            self._mesh.links.drain()
            lost = self._mesh.links.lost_rank()
            if lost is not None:
                raise self.links.of_rank(lost).lost("closed its link")

    def rank_figures(self) -> list[RankFigures]:
        """Returns every rank's figures, rank 0 first; zeros for one that does not answer at
        once."""
        own = self._mesh.links
        weights_bytes = self._read_bytes(self._manifests[0])
        number = secrets.randbits(31)
        for link in self.links:
            link.tell_session(StatsCall(number))
        figures = self._meter.figures(weights_bytes, own.sent_bytes, own.received_bytes)
        answers = {0: figures}
        deadline = time.monotonic() + STATS_TIMEOUT_S
        while len(answers) < len(self.shards) and time.monotonic() < deadline:
            self.links.poll(POLL_MS)
            for link in self.links:
                answer = link.answer(RankStats)
                if answer is not None and answer.number == number:
                    answers[link.rank] = answer.figures
        return [answers.get(shard.rank, RankFigures()) for shard in self.shards]

    def close(self) -> None:
        """Ends the session on all workers; rank 0 stays with its owner."""
        self.links.close()
        self._meeting.close()
        self._context.destroy()
