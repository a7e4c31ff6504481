"""The engine's loop over a real socket, in a thread and in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import zmq

from cluster.engine_server import HIGH_WATER, EngineServer
from cluster.wire.engine_messages import decode_message, encode_message
from dllama.engine.engine import Engine
from dllama.engine.loop import Progress
from dllama.engine.recovery import DEFAULT_MAX_RECOVER_S
from dllama.errors import ConfigError, ModelFileError
from dllama.requests import (
    Abort,
    EngineState,
    FinishReason,
    FromEngine,
    Output,
    SamplingParams,
    StatsQuery,
    StatsReply,
    StepDone,
    Submit,
    ToEngine,
)
from tests.dllama.engine.history_runner import HistoryRunner, expected_answer

PATIENCE_S = 30.0  # a limit for a hang, never waited for
WARM = SamplingParams(temperature=1.0, top_k=20, seed=5)
PROJECT = Path(__file__).resolve().parents[2]


class Client:
    """A blocking client: what api/engines/zmq_client.py does, without asyncio."""

    def __init__(
        self, context: zmq.Context[zmq.Socket[bytes]], endpoint: str, high_water: int = 1000
    ) -> None:
        self.socket = context.socket(zmq.DEALER)
        self.socket.setsockopt(zmq.LINGER, 0)
        self.socket.setsockopt(zmq.RCVHWM, high_water)
        self.socket.setsockopt(zmq.RCVTIMEO, int(PATIENCE_S * 1e3))
        self.socket.connect(endpoint)
        self.states: list[EngineState] = []
        self.replies: dict[str, dict[str, object]] = {}
        self.outputs: dict[str, list[Output]] = {}

    def send(self, *messages: ToEngine) -> None:
        for message in messages:
            self.socket.send(encode_message(message))

    def receive(self) -> FromEngine:
        message = decode_message(self.socket.recv())
        if isinstance(message, StepDone):
            for output in message.outputs:
                self.outputs.setdefault(output.id, []).append(output)
        elif isinstance(message, EngineState):
            self.states.append(message)
        elif isinstance(message, StatsReply):
            self.replies[message.id] = message.stats
        else:
            raise AssertionError(f"an engine sent {message}")
        return message

    def receive_until(self, is_done: Callable[[], bool]) -> None:
        while not is_done():
            self.receive()

    def receive_state(self, state: str) -> EngineState:
        self.receive_until(lambda: bool(self.states) and self.states[-1].state == state)
        return self.states[-1]

    def finish(self, name: str) -> Output:
        """The last Output of a sequence, once it is there."""
        self.receive_until(
            lambda: name in self.outputs and self.outputs[name][-1].finish is not None
        )
        return self.outputs[name][-1]

    def tokens(self, name: str) -> list[int]:
        return [token for output in self.outputs[name] for token in output.tokens]


class Running:
    """A server in a thread, and a client of it."""

    def __init__(self, server: EngineServer, client: Client, parent_fd: int) -> None:
        self.client = client
        self.exit_code: int | None = None
        self._parent_fd: int | None = parent_fd
        self.thread = threading.Thread(target=self._run, args=(server,))
        self.thread.start()

    def _run(self, server: EngineServer) -> None:
        self.exit_code = server.run()

    def leave(self) -> None:
        """The parent goes."""
        if self._parent_fd is not None:
            os.close(self._parent_fd)
            self._parent_fd = None
        self.thread.join(PATIENCE_S)
        assert not self.thread.is_alive(), "the engine outlives its parent"


@pytest.fixture
def endpoint() -> Iterator[str]:
    with tempfile.TemporaryDirectory(prefix="dllama") as directory:  # short: ipc paths are
        yield f"ipc://{directory}/engine"


@contextmanager
def serving(
    engine: Engine | Callable[[Progress], Engine],
    endpoint: str,
    client_high_water: int = 1000,
    *,
    high_water: int = HIGH_WATER,
    max_recover_s: float = DEFAULT_MAX_RECOVER_S,
) -> Iterator[Running]:
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    read_fd, write_fd = os.pipe()
    client = Client(context, endpoint, client_high_water)
    running = Running(
        EngineServer(
            engine,
            endpoint,
            parent_fd=read_fd,
            high_water=high_water,
            max_recover_s=max_recover_s,
        ),
        client,
        write_fd,
    )
    try:
        yield running
    finally:
        running.leave()
        os.close(read_fd)
        client.socket.close()
        context.term()


def check_answer(client: Client, submit: Submit, runner: HistoryRunner) -> None:
    last = client.finish(submit.id)
    answer = expected_answer(submit, runner.config, runner.n_pages)
    assert client.tokens(submit.id) == answer.tokens
    assert last.finish is answer.finish


def test_several_streams_are_each_the_models_answer(endpoint: str) -> None:
    runner = HistoryRunner()
    with serving(Engine(runner), endpoint) as running:
        client = running.client
        submits = [Submit(f"s{i}", [i + 1, 5, 9], WARM, max_tokens=20 + i) for i in range(5)]
        client.send(*submits)
        for submit in submits:
            check_answer(client, submit, runner)
        assert [state.state for state in client.states][-1] == "ready"
        running.leave()
        assert running.exit_code == 0
        assert not runner.is_closed, "an engine that was handed in is its owner's to close"


def test_loading_tells_its_progress_and_the_server_closes_what_it_loaded(endpoint: str) -> None:
    runner = HistoryRunner()
    may_load = threading.Event()

    def load(report: Progress) -> Engine:
        while not may_load.wait(0.01):
            report(0.25, "layer 1 of 4")
        return Engine(runner)

    with serving(load, endpoint) as running:
        client = running.client
        # The client may connect late; what it hears then is the latest.
        client.receive_until(
            lambda: client.states[-1:] == [EngineState("loading", 0.25, "layer 1 of 4")]
        )
        may_load.set()
        client.receive_state("ready")
        running.leave()
    assert running.exit_code == 0 and runner.is_closed


def test_progress_is_told_now_and_then_only(endpoint: str) -> None:
    def load(report: Progress) -> Engine:
        for i in range(10_000):
            report(i / 10_000, "loading")
        return Engine(HistoryRunner())

    with serving(load, endpoint) as running:
        running.client.receive_state("ready")
        assert len(running.client.states) < 1_000


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ModelFileError("m.gguf is no model file"), "m.gguf is no model file"),
        (RuntimeError("a bug"), "RuntimeError('a bug')"),
    ],
)
def test_an_engine_that_cannot_load_says_why(endpoint: str, error: Exception, words: str) -> None:
    def load(report: Progress) -> Engine:
        raise error

    with serving(load, endpoint) as running:
        assert words in running.client.receive_state("failed").detail
        running.thread.join(PATIENCE_S)
        assert running.exit_code == 1


def test_a_bug_in_a_step_is_told_before_the_engine_ends(endpoint: str) -> None:
    class Buggy(HistoryRunner):
        def run(self, step: object) -> list[object]:  # type: ignore[override]
            raise IndexError("out of bounds")

    with serving(Engine(Buggy()), endpoint) as running:
        running.client.send(Submit("a", [1], WARM))
        assert "out of bounds" in running.client.receive_state("failed").detail
        running.thread.join(PATIENCE_S)
        assert running.exit_code == 1


def test_nonsense_is_dropped_and_the_next_request_served(endpoint: str) -> None:
    runner = HistoryRunner()
    with serving(Engine(runner), endpoint) as running:
        client = running.client
        for data in (b"", b"\xc1", b"\x80", encode_message(StepDone([]))):
            client.socket.send(data)
        client.send(Submit("bad", [1, 5000], WARM))
        submit = Submit("good", [1, 2, 3], WARM, max_tokens=6)
        client.send(submit)
        check_answer(client, submit, runner)
        assert "5000" in (client.finish("bad").error or "")


def test_abort_silences_a_sequence(endpoint: str) -> None:
    runner = HistoryRunner(max_seq_len=2000)
    with serving(Engine(runner), endpoint) as running:
        client = running.client
        client.send(Submit("a", [1], WARM), StatsQuery("before"))
        client.receive_until(lambda: "a" in client.outputs)
        client.send(Abort("a"), Abort("never heard of"), StatsQuery("q"))
        client.receive_until(lambda: "q" in client.replies)
        kv = client.replies["q"]["kv"]
        assert isinstance(kv, dict) and kv["pages_used"] == 0
        assert all(output.finish is None for output in client.outputs["a"])


def test_statistics_that_cannot_be_sent_are_still_answered(endpoint: str) -> None:
    class Odd(HistoryRunner):
        def stats(self) -> list[dict[str, object]]:
            return [{"rank": object()}]

    with serving(Engine(Odd()), endpoint) as running:
        running.client.send(StatsQuery("q"))
        running.client.receive_until(lambda: "q" in running.client.replies)
        assert "error" in running.client.replies["q"]


def test_a_lost_node_is_a_pause(endpoint: str) -> None:
    runner = HistoryRunner(lose_at=[4], n_failures=1)
    with serving(Engine(runner), endpoint) as running:
        client = running.client
        submits = [Submit(name, [1, 2], WARM, max_tokens=50) for name in ("a", "early")]
        client.send(submits[0])
        told = client.receive_state("recovering")
        assert "10.0.0.9:9998" in told.detail and told.queues
        client.send(submits[1], StatsQuery("q"))
        client.receive_until(lambda: "q" in client.replies)
        assert client.replies["q"]["recovery"] == {"total": 0, "seconds": 0.0}
        for submit in submits:
            check_answer(client, submit, runner)
        assert client.states[-1].state == "ready"


def test_answers_that_wait_too_long_end_and_the_engine_comes_back(endpoint: str) -> None:
    runner = HistoryRunner(lose_at=[4], n_failures=2)
    with serving(Engine(runner), endpoint, max_recover_s=0.0) as running:
        client = running.client
        client.send(Submit("a", [1, 2], WARM, max_tokens=50))
        assert client.finish("a").finish is FinishReason.ERROR
        assert "10.0.0.9:9998" in (client.finish("a").error or "")
        client.send(Submit("early", [1, 2], WARM), StatsQuery("q"))
        assert client.finish("early").finish is FinishReason.ERROR
        assert client.finish("early").retry_after_s is not None
        client.receive_until(lambda: "q" in client.replies)
        client.receive_state("ready")
        submit = Submit("late", [1, 2], WARM, max_tokens=10)
        client.send(submit)
        check_answer(client, submit, runner)


def test_weights_sent_again_are_loading_and_what_comes_before_is_recovering(endpoint: str) -> None:
    """As ClusterRunner tells of weights: through the function that loading was given."""

    class Fed(HistoryRunner):
        report: Progress
        is_fed = threading.Event()

        def recover(self) -> None:
            super().recover()
            while not self.is_fed.wait(0.02):
                self.report(0.5, "sending 5 of 10 MB")

    runner = Fed(n_failures=1)

    def load(report: Progress) -> Engine:
        runner.report = report
        return Engine(runner)

    with serving(load, endpoint) as running:
        client = running.client
        client.receive_state("ready")
        client.states.clear()
        runner.lose()
        assert client.receive_state("recovering").progress == 0.0
        assert client.receive_state("loading").detail == "sending 5 of 10 MB"
        runner.is_fed.set()
        client.receive_state("ready")
        told = [state.state for state in client.states]
        assert told == sorted(told, key=["recovering", "loading", "ready"].index)


def test_a_node_lost_while_idle_is_told(endpoint: str) -> None:
    runner = HistoryRunner()
    with serving(Engine(runner), endpoint) as running:
        running.client.receive_state("ready")
        runner.lose()
        running.client.receive_state("recovering")
        running.client.receive_state("ready")


def test_the_parent_may_go_while_nodes_are_lost(endpoint: str) -> None:
    runner = HistoryRunner(lose_at=[0], n_failures=1_000_000)
    with serving(Engine(runner), endpoint) as running:
        running.client.send(Submit("a", [1], WARM))
        running.client.receive_state("recovering")
        running.leave()
        assert running.exit_code == 0


def test_the_parent_may_go_while_loading(endpoint: str) -> None:
    def load(report: Progress) -> Engine:
        while True:
            report(0.0, "for ever")

    with serving(load, endpoint) as running:
        running.client.receive_state("loading")
        running.leave()
        assert running.exit_code == 0


def test_a_client_that_stops_reading_stops_the_steps_and_loses_nothing(endpoint: str) -> None:
    n_sequences, n_tokens = 16, 700
    runner = HistoryRunner(n_pages=600, max_seq_len=2000)
    engine = Engine(runner, max_batch=n_sequences)
    with serving(engine, endpoint, client_high_water=2, high_water=2) as running:
        client = running.client
        client.receive_state("ready")
        submits = [
            Submit(f"s{i}", [i + 1], SamplingParams(temperature=0.0), max_tokens=n_tokens)
            for i in range(n_sequences)
        ]
        client.send(*submits)
        # It has work all the while: that it idles means that it may not step. So somebody watches
        # over the nodes meanwhile.
        wait_until(lambda: bool(runner.idle_at) and runner.idle_at[-1] > 0)
        assert len(runner.step_sizes) < n_tokens // 2 + 200, "the backlog has no bound"
        for submit in submits:
            check_answer(client, submit, runner)


def wait_until(condition: Callable[[], bool]) -> None:
    """Returns once another thread has brought this about."""
    until_s = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < until_s, "the steps never stop"
        time.sleep(0.01)


def test_an_endpoint_that_cannot_be_had_is_a_sentence() -> None:
    with pytest.raises(ConfigError, match="cannot be opened"):
        EngineServer(Engine(HistoryRunner()), "ipc:///nowhere/at/all").run()


def test_the_engine_may_connect_to_a_client_that_binds(endpoint: str) -> None:
    runner = HistoryRunner()
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    read_fd, write_fd = os.pipe()
    client = Client.__new__(Client)
    client.socket = context.socket(zmq.DEALER)
    client.socket.setsockopt(zmq.LINGER, 0)
    client.socket.setsockopt(zmq.RCVTIMEO, int(PATIENCE_S * 1e3))
    client.socket.bind(endpoint)
    client.states, client.replies, client.outputs = [], {}, {}
    server = EngineServer(Engine(runner), endpoint, bind=False, parent_fd=read_fd)
    running = Running(server, client, write_fd)
    try:
        client.receive_state("ready")
        submit = Submit("a", [4, 5], WARM, max_tokens=7)
        client.send(submit)
        check_answer(client, submit, runner)
    finally:
        running.leave()
        os.close(read_fd)
        client.socket.close()
        context.term()


def test_a_process_serves_and_ends_with_its_parent(endpoint: str) -> None:
    runner = HistoryRunner()
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    client = Client(context, endpoint)
    command = [sys.executable, "-m", "tests.cluster.engine_child", endpoint]
    child = subprocess.Popen(command, stdin=subprocess.PIPE, cwd=PROJECT)
    try:
        client.receive_state("ready")
        submit = Submit("a", [1, 2, 3], WARM, max_tokens=30)
        client.send(submit, Submit("b", [9], WARM))
        check_answer(client, submit, runner)
        assert child.stdin is not None
        child.stdin.close()  # what the kernel does when this process dies
        assert child.wait(PATIENCE_S) == 0
    finally:
        child.kill()
        child.wait()
        client.socket.close()
        context.term()
