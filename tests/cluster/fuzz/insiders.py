"""Attacks of those who are let in: a root that opened a session and then sends nonsense, a worker
that lies to its root, a server that sends nonsense to its engine."""

from __future__ import annotations

import random
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import msgpack
import psutil
import zmq

from cluster.machine import describe_machine
from cluster.root.runner import ClusterRunner
from cluster.root.session_plan import ClusterConfig
from cluster.security.epoch_links import connect_plain
from cluster.sockets import Address, endpoint
from cluster.wire import engine_messages
from cluster.wire import messages as node_messages
from cluster.wire.engine_messages import decode_message, encode_message
from cluster.wire.messages import (
    Admitted,
    CloseSession,
    Hello,
    Introduced,
    Introduction,
    OpenSession,
    Proof,
    Refused,
    SessionEnded,
    SessionReady,
    Welcome,
    pack,
    unpack,
)
from dllama import __version__
from dllama.errors import DllamaError, ProtocolError
from dllama.requests import EngineState, StatsQuery, StatsReply
from tests.cluster.array_source import ArraySource, small_config
from tests.cluster.fuzz.attacks import Row, attacked
from tests.cluster.fuzz.floods import BURST, hostile_messages
from tests.cluster.fuzz.honest import PATIENCE_MS, Honest, hello
from tests.cluster.fuzz.mutations import Frames
from tests.cluster.numpy_rank import load_numpy_rank
from tests.cluster.worker_process import HOUSE, WorkerProcess

FRAMES_A_SESSION = 40
FRAMES_A_LIE = 60


def attack_as_root(worker: WorkerProcess, n_sessions: int, rng: random.Random) -> Row:
    """Opens sessions as a root does, and sends each of them nonsense of its own epoch. They end;
    the daemon goes on."""
    daemon, honest = psutil.Process(worker.process.pid), Honest(hello(worker.address))
    before, n_sent = daemon.memory_info().rss, 0
    frames = hostile_messages(node_messages.CODEC, rng)
    for _ in range(n_sessions):
        n_sent += _one_session(worker.address, frames, rng)
        honest()
    return attacked("session, nonsense of its root", n_sent, daemon, before, honest)


def _one_session(address: Address, frames: Iterator[Frames], rng: random.Random) -> int:
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    try:
        daemon, session = context.socket(zmq.DEALER), context.socket(zmq.DEALER)
        daemon.setsockopt(zmq.RCVTIMEO, PATIENCE_MS)
        daemon.connect(endpoint(address.host, address.port))
        epoch = rng.getrandbits(62) + 1
        daemon.send_multipart(pack(Hello(__version__)))
        welcome = _hear(daemon, Welcome)
        name = f"fuzz {epoch}"
        daemon.send_multipart(pack(OpenSession(name, 1, 2, "f32", 0, welcome.nonce), epoch))
        ready = _hear(daemon, SessionReady)
        connect_plain(session, epoch)
        session.connect(endpoint(address.host, ready.control_port))
        for _ in range(FRAMES_A_SESSION):
            session.send_multipart(_of_epoch(next(frames), epoch))
        time.sleep(0.2)
        daemon.send_multipart(pack(CloseSession(), epoch))
        _hear(daemon, SessionEnded)
        return FRAMES_A_SESSION
    finally:
        context.destroy(linger=0)


def _hear(link: zmq.Socket[bytes], kind: type) -> object:
    while True:
        _, message = unpack(link.recv_multipart())
        if isinstance(message, kind):
            return message


def _of_epoch(frames: Frames, epoch: int) -> Frames:
    """The frames with another epoch in their head, where they have one."""
    try:
        head = msgpack.unpackb(frames[0], strict_map_key=False)
        head["e"] = epoch
        return [msgpack.packb(head), *frames[1:]]
    except Exception:  # they are too damaged for that
        return frames


def attack_root(n_lies: int, rng: random.Random) -> Row:
    """A worker that answers its root with nonsense: the root says so, each time, and in time."""
    here = psutil.Process()
    before, frames = here.memory_info().rss, hostile_messages(node_messages.CODEC, rng)
    honest = Honest(lambda: None)
    with _liar(frames, rng) as (port, n_sent):
        config = ClusterConfig(
            [Address("127.0.0.1", port)], n_pages=8, max_step_tokens=64, threads=1,
            hello_timeout_s=1.0,
        )  # fmt: skip
        for _ in range(n_lies):
            began = time.monotonic()
            runner = ClusterRunner(ArraySource(small_config()), config, load_numpy_rank)
            try:
                runner.start()
                honest.failure = "a root took a liar for a worker"
            except DllamaError as error:
                honest.n_served += bool(str(error))
            except Exception as error:
                honest.failure = f"{type(error).__name__}: {error}"
            finally:
                runner.close()
            honest.worst_s = max(honest.worst_s, time.monotonic() - began)
        return attacked("root, a lying worker", n_sent[0], here, before, honest)


@contextmanager
def _liar(frames: Iterator[Frames], rng: random.Random) -> Iterator[tuple[int, list[int]]]:
    """A worker that may welcome a root, and answers all else with nonsense and, at last, a
    refusal."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    socket = context.socket(zmq.ROUTER)
    port = socket.bind_to_random_port("tcp://127.0.0.1")
    n_sent, is_over = [0], threading.Event()

    def lie() -> None:
        while not is_over.is_set():
            if not socket.poll(50):
                continue
            root, *asked = socket.recv_multipart()
            try:
                epoch, message = unpack(asked)
            except ProtocolError:
                continue
            honesty = rng.random()  # how far it gets before it lies
            if isinstance(message, Introduction) and honesty < 0.8:
                found = Introduced(
                    __version__, [], "", "n", message.nonce, False, False, 0, ""
                )  # fmt: skip
                answers = [pack(found), pack(Admitted())]
            elif isinstance(message, Hello) and honesty < 0.8:
                answers = [pack(describe_machine("liar", 1))]
            elif isinstance(message, Proof):
                continue
            else:
                answers = [_of_epoch(next(frames), epoch) for _ in range(FRAMES_A_LIE)]
                answers.append(pack(Refused("enough"), epoch))
            for answer in answers:
                socket.send_multipart([root, *answer])
            n_sent[0] += len(answers)

    thread = threading.Thread(target=lie)
    thread.start()
    try:
        yield port, n_sent
    finally:
        is_over.set()
        thread.join()
        context.destroy(linger=0)


def attack_engine(n: int, rng: random.Random, limit_s: float) -> Row:
    """A server that sends nonsense to its engine, in between asks for figures, and gets them."""
    with tempfile.TemporaryDirectory(prefix="dllama") as folder:
        where = f"ipc://{folder}/engine"
        child = subprocess.Popen(
            [sys.executable, "-m", "tests.cluster.engine_child", where],
            stdin=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd=HOUSE,
        )  # fmt: skip
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        link = context.socket(zmq.DEALER)
        link.setsockopt(zmq.RCVTIMEO, PATIENCE_MS)
        link.connect(where)
        try:
            while not isinstance(found := decode_message(link.recv()), EngineState) or (
                found.state != "ready"
            ):
                continue
            return _flood_engine(psutil.Process(child.pid), link, n, rng, limit_s)
        finally:
            context.destroy(linger=0)
            assert child.stdin is not None
            child.stdin.close()
            child.wait(20)


def _flood_engine(
    engine: psutil.Process, link: zmq.Socket[bytes], n: int, rng: random.Random, limit_s: float
) -> Row:
    number = [0]

    def ask() -> None:
        number[0] += 1
        link.send(encode_message(StatsQuery(f"honest {number[0]}")))
        while True:
            reply = decode_message(link.recv())
            if isinstance(reply, StatsReply) and reply.id == f"honest {number[0]}":
                return

    honest, frames = Honest(ask), hostile_messages(engine_messages.CODEC, rng)
    honest()
    before, n_sent, until = engine.memory_info().rss, 0, time.monotonic() + limit_s
    while n_sent < n and time.monotonic() < until and not honest.failure:
        for _ in range(BURST):
            link.send_multipart(next(frames))
        n_sent += BURST
        honest()
    return attacked("engine, nonsense of its server", n_sent, engine, before, honest)
