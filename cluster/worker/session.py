"""Rank k of one model: a process that a worker daemon starts for a session and that ends with it.

Its life: listen, join the mesh, take in the weights, compute steps until the root leaves.
One thread does all of that; a second one only waits for the daemon's death.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
import time
from pathlib import Path

import zmq

from cluster.meeting_times import JOIN_TIMEOUT_S, MESH_TIMEOUT_S
from cluster.mesh.collective import MeshCollective
from cluster.mesh.sync_type import SyncType
from cluster.rank import LoadRank, Rank, move_kv
from cluster.security.epoch_links import EpochLinks, SessionLinks
from cluster.security.keys import new_pair
from cluster.security.links import CONTROL, LinkSecurity
from cluster.sockets import Context, Socket, parse_address, session_ports
from cluster.weights.arriving import ArrivingTensors
from cluster.wire.checks import check_keys, check_pages, check_peers
from cluster.wire.messages import (
    Chunk,
    Failed,
    Join,
    Joined,
    KvCall,
    Load,
    Loaded,
    RankStats,
    SessionReady,
    Spares,
    StatsCall,
    StepCall,
    pack,
)
from cluster.wire.model_checks import check_config
from cluster.wire.step_checks import KvRoom, RankLimits, check_shift, checked_step
from cluster.worker.before_load import next_load
from cluster.worker.kv_folder import kv_folder
from cluster.worker.progress import ProgressFile
from cluster.worker.rank_weights import RankWeights
from cluster.worker.root_link import RootLate, RootLink, RootUnreachable, reaching
from cluster.worker.session_config import SessionConfig
from dllama.errors import DllamaError, PeerLost, ProtocolError
from dllama.host.container import available_memory, is_throttled
from dllama.host.descriptors import check_free
from dllama.kv import KvShift
from dllama.logs.context import about_model
from dllama.logs.settings import LogSettings, set_up_logging
from dllama.qtypes import row_bytes
from dllama.runtime.meter import RankMeter
from kernels.kernel import on_compile

log = logging.getLogger(__name__)

FAREWELL_S = 10.0  # how long a rank that lost a peer waits for the root to end the session


class WorkerSession:
    """One rank on a worker."""

    def __init__(self, config: SessionConfig, load_rank: LoadRank) -> None:
        self._config = config
        self._load_rank = load_rank
        self._context: Context = zmq.Context()
        self._progress = ProgressFile(Path(config.progress_path), is_owner=False)
        # Polling uses up what a container may compute in: the rank would be paused for it.
        polls = not is_throttled(config.threads)
        self._root = RootLink(
            self._context, config.host, config.epoch, self._check_peers, polls=polls
        )
        self._daemon: Socket = self._context.socket(zmq.PUSH)
        self._daemon.setsockopt(zmq.LINGER, 1_000)
        self._mesh = MeshCollective(
            config.rank,
            config.world_size,
            config.epoch,
            sync_type=SyncType(config.sync_type),
            context=self._context,
            watch=self._progress.beat,
            polls=polls,
        )
        self._security: SessionLinks = (
            LinkSecurity(self._context, new_pair())
            if config.root_key
            else EpochLinks(self._context, config.epoch)
        )
        self._meter = RankMeter()
        self._weights_bytes = 0
        self._weights = RankWeights(config, self._context, self._root, self._check_peers)

    def run(self) -> int:
        """Serves the session and returns the process's exit code."""
        try:
            with on_compile(lambda name: self._progress.beat()):
                self._serve()
        except RootLate:
            self._fail(f"no root joined it within {JOIN_TIMEOUT_S:g} s")
        except PeerLost as lost:
            if lost.rank == 0:
                log.info("the root left; this session ends")
                return 0
            self._fail(str(lost), lost.rank)
            self._await_farewell()
        except RootUnreachable as error:
            self._fail(str(error), lost_rank=0)
        except MemoryError as error:
            self._fail(f"ran out of memory ({error}); give it a smaller share (--shares)")
        except DllamaError as error:
            self._fail(str(error))
        except Exception as error:
            log.exception("the session failed")
            self._fail(f"{type(error).__name__}: {error}")
        finally:
            self._close()
        return 1

    def _serve(self) -> None:
        self._listen()
        deadline = time.monotonic() + JOIN_TIMEOUT_S
        join = self._root.expect(Join, lambda: time.monotonic() > deadline)
        check_peers(join.peers, self._config.world_size)
        check_keys(join.keys, self._config.world_size, is_encrypted=bool(self._config.root_key))
        self._weights.join(join, self._security)
        with reaching(parse_address(join.peers[0].removeprefix("tcp://"))):
            self._mesh.connect(join.peers, MESH_TIMEOUT_S, join.keys)
        self._tell_both(Joined())
        words = self._progress.kernel_words
        load = next_load(self._root, self._mesh, self._config.threads, words)
        check_config(load.config)
        about_model(load.config.name)
        check_pages(load.config, load.n_pages, load.max_step_tokens, available_memory())
        arriving = self._weights.arriving(load)
        rank = self._load(load, arriving)
        try:
            self._tell_both(arriving.loaded())
            self._compute(rank, load)
        finally:
            rank.close()

    def _tell_both(self, message: Joined | Loaded) -> None:
        """Tells the daemon and the root how far this session is."""
        self._daemon.send_multipart(pack(message, self._config.epoch))
        self._root.send(message)

    def _listen(self) -> None:
        host, ports = self._config.host, session_ports(self._config.port)
        self._security.start()
        self._security.admit(CONTROL, [self._config.root_key])
        control_port = self._root.bind(ports, self._security)
        mesh_port = self._mesh.bind(host, ports, self._security)
        store_port = self._weights.bind(ports, self._security)
        self._daemon.connect(self._config.report_endpoint)
        ready = SessionReady(
            os.getpid(), control_port, mesh_port, store_port, self._security.public_key
        )
        self._daemon.send_multipart(pack(ready, self._config.epoch))
        log.info("listening on the ports %d and %d", control_port, mesh_port)

    def _load(self, load: Load, arriving: ArrivingTensors) -> Rank:
        self._weights_bytes = sum(info.read_bytes(load.config) for info in load.manifest)
        return self._load_rank(
            load.config,
            arriving.tensors(),
            n_pages=load.n_pages,
            max_step_tokens=load.max_step_tokens,
            n_threads=self._config.threads,
            vocab_start=load.vocab_start,
            embed_qtype=load.embed_qtype,
            units=load.units,
            kind=SyncType(self._config.sync_type).kind(self._config.world_size),
            kv_type=load.kv_type,
            progress=self._progress.kernel_words,
        )

    def _compute(self, rank: Rank, load: Load) -> None:
        """Computes steps and answers calls until the root leaves."""
        room = KvRoom.of(load.config, load.n_pages, load.max_step_tokens)
        limits = RankLimits(
            load.max_step_tokens,
            load.n_pages,
            load.config.max_seq_len,
            load.config.vocab_size,
            row_bytes(load.embed_qtype, load.config.dim),
            load.config.n_slots,
            room.n_window_pages,
            load.config.window,
        )
        while True:
            message = self._root.receive()
            if isinstance(message, StepCall):
                started = time.perf_counter_ns()
                before = self._mesh.times
                step = checked_step(message, limits)
                for request in step.requests:
                    log.debug("a sequence begins", extra={"request_id": request})
                self._mesh.begin_step()
                rank.forward(step, message.embed_rows, self._mesh)
                elapsed = time.perf_counter_ns() - started
                if not message.is_warm_up:
                    self._meter.add(step, elapsed, before, self._mesh.times)
            elif isinstance(message, KvShift):
                check_shift(message, limits)
                rank.shift(message)
            elif isinstance(message, KvCall):
                beat = self._progress.beat
                self._root.send(move_kv(rank, message, room, kv_folder(), beat))
            elif isinstance(message, Spares | Chunk):
                self._progress.beat()  # without pauses in between, nobody else does
                self._weights.take_spares(message)
            elif isinstance(message, StatsCall):
                self._root.send(self._stats(message.number))
            else:
                raise ProtocolError(f"the root sent {type(message).__name__} between two steps")

    def _stats(self, number: int) -> RankStats:
        links = self._mesh.links
        figures = self._meter.figures(self._weights_bytes, links.sent_bytes, links.received_bytes)
        return RankStats(number, figures)

    def _check_peers(self) -> None:
        self._progress.beat()
        self._weights.tell()
        self._mesh.links.drain()
        self._mesh.links.check()

    def _fail(self, reason: str, lost_rank: int = -1) -> None:
        """Tells the root and the daemon why this session ends."""
        log.error("the session failed: %s", reason)
        failed = Failed(reason, lost_rank)
        try:
            self._daemon.send_multipart(pack(failed, self._config.epoch), zmq.NOBLOCK)
            if self._root.has_root:
                self._root.send(failed)
        except zmq.ZMQError as error:
            log.error("and nobody could be told: %s", error)

    def _await_farewell(self) -> None:
        """Keeps this rank's links open until the root has ended the session, so that the root does
        not take this rank for the one that was lost."""
        deadline = time.monotonic() + FAREWELL_S
        while time.monotonic() < deadline and self._mesh.links.lost_rank() != 0:
            self._progress.beat()
            time.sleep(0.1)

    def _close(self) -> None:
        self._weights.close()
        self._mesh.close()
        self._root.close()
        self._daemon.close()
        self._security.close()
        self._context.destroy()
        self._progress.close()


def end_with_daemon(lifeline: int) -> None:
    """Ends this process, whatever it computes, when the daemon's end of the pipe closes."""

    def wait() -> None:
        while os.read(lifeline, 1):
            pass
        os._exit(1)  # no clean-up: the other thread may be inside a kernel

    threading.Thread(target=wait, name="lifeline", daemon=True).start()


def main(load_rank: LoadRank) -> int:
    """Runs the session described on standard input; returns its exit code. Raises ConfigError where
    the links to the other ranks need more file descriptors than there are."""
    line = sys.stdin.buffer.readline()
    if not line:  # a daemon that started this process ahead has ended without a use for it
        return 0
    config = SessionConfig(**json.loads(line))
    set_up_logging(LogSettings(config.log_level, config.log_format), rank=config.rank)
    end_with_daemon(sys.stdin.fileno())
    check_free(24 + 16 * config.world_size, f"a rank of {config.world_size}")
    return WorkerSession(config, load_rank).run()
