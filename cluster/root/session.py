"""One life of a cluster, from hello to the first lost peer: all state that belongs to its epoch.

One thread. While it waits it reads what daemons and ranks have said; a worker that failed, fell
silent, stands still or cut a link is a PeerLost, and the session is then over.
"""

from __future__ import annotations

import logging
import secrets
import time
from copy import copy

import zmq

from cluster.mesh.collective import MeshCollective
from cluster.rank import Rank
from cluster.root.kv_broadcast import KvBroadcast
from cluster.root.parts import RootParts
from cluster.root.root_way import listen_host, root_host, way_hint
from cluster.root.session_plan import peer_endpoints, warm_up_steps
from cluster.root.session_weights import SessionWeights
from cluster.root.worker_links import POLL_MS, WorkerLinks
from cluster.security.epoch_links import EpochLinks, SessionLinks
from cluster.security.keys import KeyPair, new_pair
from cluster.security.links import LinkSecurity
from cluster.sockets import Context
from cluster.wire.checks import check_keys
from cluster.wire.messages import (
    Join,
    Joined,
    OpenSession,
    RankStats,
    SessionReady,
    StatsCall,
    StepCall,
    Welcome,
    pack,
)
from dllama.collective import Collective, SoloCollective
from dllama.runtime.meter import RankFigures, RankMeter
from dllama.sharding.cut import cut_manifest
from dllama.sharding.memory import memory_needed
from dllama.sharding.plan import Shard, plan_for
from dllama.step import LogitRow, Step
from dllama.weight_source import TensorInfo
from kernels.matmul.sums import Kind

log = logging.getLogger(__name__)

START_TIMEOUT_S = 60.0  # for a worker to start a process: imports from a slow disk
MESH_TIMEOUT_S = 15.0
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
        self._pair: KeyPair | None = None  # of this session, where its links are encrypted
        self._security: SessionLinks | None = None
        self._made_mesh: MeshCollective | None = None
        self._checked_at = 0.0
        self._rank: Rank | None = None
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

    def open(self, own_rank: Rank | None) -> Rank:
        """Brings the ranks up that were greeted, and returns rank 0; `own_rank` is one of an
        earlier session that had the same shard and kind of sums.

        Raises ConfigError (shares), ClusterError, ProtocolError, PeerLost.
        """
        config = self._parts.config
        self._prepare_links()
        self._plan()
        self._open_sessions()
        if config.workers:
            self._join()
        self.links.also_watch = self._mesh.links.check  # a frozen process is seen by them too
        self.links.limit_hangs(config.load_hang_timeout_s)
        with self.links.explained():
            self._rank = self.weights.load(self.shards, self.kind, own_rank)
        self._kv = KvBroadcast(
            self.links, self.epoch, self._rank, self.shards, self._parts.source, config.n_pages,
            config.kv_dir,
        )  # fmt: skip
        if config.warm_up:
            max_seq_len = self._parts.source.config.max_seq_len
            for step in warm_up_steps(config.max_step_tokens, config.n_pages, max_seq_len):
                self._compute(step, is_warm_up=True)
        self.links.limit_hangs(config.hang_timeout_s)
        return self._rank

    def _prepare_links(self) -> None:
        """Makes what sockets of this session need, as the workers have said what they can do."""
        if self.links.is_encrypted:
            self._pair = new_pair()
            self._security = LinkSecurity(self._context, self._pair)
        else:
            self._security = EpochLinks(self._context, self.epoch)
        self._security.start()
        config = self._parts.config
        self._made_mesh = MeshCollective(
            0,
            config.world_size,
            self.epoch,
            sync_type=self._sync_type,
            context=self._context,
            watch=self.links.watch,
        )

    @property
    def _mesh(self) -> MeshCollective:
        assert self._made_mesh is not None, "open() comes first"
        return self._made_mesh

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

    def _open_sessions(self) -> None:
        config = self._parts.config
        for link, welcome in zip(self.links, self.welcomes, strict=True):
            link.epoch = self.epoch
            link.watch_from_now()
            link.tell_daemon(
                OpenSession(
                    self._parts.root,
                    link.rank,
                    config.world_size,
                    str(self._sync_type),
                    self._needed[link.rank],
                    welcome.nonce,
                    "" if self._pair is None else self._pair.public,
                )
            )
        slow = f"started no process within {START_TIMEOUT_S:g} s; its own output may say why"
        self._ready = self.links.await_all(SessionReady, START_TIMEOUT_S, slow)
        for link, ready in zip(self.links, self._ready, strict=True):
            link.open_session_link(ready, self._pair)

    def _join(self) -> None:
        """All ranks connect to all: a firewall between two workers shows before the weights go."""
        config = self._parts.config
        mesh_ports = {
            link.rank: r.mesh_port for link, r in zip(self.links, self._ready, strict=True)
        }
        store_ports = {
            link.rank: r.store_port for link, r in zip(self.links, self._ready, strict=True)
        }
        mesh_ports[0] = self._mesh.bind(listen_host(config), config.mesh_ports, self._security)
        store_ports[0] = mesh_ports[0]  # the root has the file, and nobody asks it there
        keys = self._public_keys()
        for link in self.links:
            seen_as = root_host(config, link.address)
            endpoints = peer_endpoints(link.rank, config.workers, mesh_ports, seen_as)
            stores = peer_endpoints(link.rank, config.workers, store_ports, seen_as)
            link.way_hint = way_hint(config)
            link.tell_session(Join(endpoints, stores, keys))
        own = peer_endpoints(0, config.workers, mesh_ports, "127.0.0.1")
        self._mesh.links.hosts = ["the root", *(str(w) for w in config.workers)]
        with self.links.explained():
            self._mesh.connect(own, MESH_TIMEOUT_S, keys)
        self.links.await_all(Joined, MESH_TIMEOUT_S + 5, "did not hear all other ranks in time")

    def _public_keys(self) -> list[str]:
        """Returns the public keys of all ranks in this session; none where links are plain."""
        if self._pair is None:
            return []
        keys = [self._pair.public, *(ready.key for ready in self._ready)]
        check_keys(keys, len(keys), is_encrypted=True)
        return keys

    # ---- at work
    def run(self, step: Step) -> list[LogitRow]:
        """Runs one step on all ranks."""
        if time.monotonic() - self._checked_at > CHECK_S:
            self.idle()
        started = time.perf_counter_ns()
        before = copy(self._mesh.times)
        logits = self._compute(step)
        elapsed = time.perf_counter_ns() - started
        self._meter.add(step, elapsed, before, self._mesh.times)
        return logits

    def _compute(self, step: Step, *, is_warm_up: bool = False) -> list[LogitRow]:
        assert self._rank is not None, "open() comes first"
        rows = self._parts.embedding.rows(step.tokens)
        frames = pack(StepCall(step, rows, is_warm_up), self.epoch)
        with self.links.explained():
            for link in self.links:
                link.send_session(frames)
            self._mesh.begin_step()
            comm: Collective = self._mesh if self._parts.config.workers else SoloCollective()
            logits = self._rank.forward(step, rows, comm)
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
        """Bytes of weights on all ranks."""
        return sum(info.n_bytes for manifest in self._manifests for info in manifest)

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
        weights_bytes = sum(info.n_bytes for info in self._manifests[0])
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
        if self._made_mesh is not None:
            self._made_mesh.close()
        if self._security is not None:
            self._security.close()
        self._context.destroy()
