"""Nodes come and go by hand, and one after the other, under streams of real programs: no text is
another than that of an undisturbed run."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from dllama.qtypes import QType
from tests.ports import own_port, own_worker_port
from tests.programs import Program, Server, root, start_worker
from tests.toy_models import write_toy

PATIENCE_S = 180.0  # a limit for a hang, never waited for
N_TOKENS = 800
N_STREAMS = 4
KEY = "a-key-of-the-test"
pytestmark = pytest.mark.timeout(400)


class Streams:
    """Streamed answers, all at once; `n_parts` counts what came of each."""

    def __init__(self, url: str) -> None:
        self._url = url
        self.n_parts = [0] * N_STREAMS
        self.is_over = False

    def one(self, i: int) -> tuple[str, str]:
        """The text of an answer, and why it ended."""
        body = {
            "prompt": f"hello {i}", "stream": True, "max_tokens": N_TOKENS, "seed": i,
            "temperature": 0.9, "ignore_eos": True,
        }  # fmt: skip
        request = urllib.request.Request(
            self._url + "/v1/completions",
            json.dumps(body).encode(),
            {"Content-Type": "application/json", "Authorization": f"Bearer {KEY}"},
        )
        text, finish = "", ""
        with urllib.request.urlopen(request, timeout=PATIENCE_S) as answer:
            for line in answer:
                if not line.startswith(b"data: {"):
                    continue
                event = json.loads(line[6:])
                assert "error" not in event, event
                self.n_parts[i] += 1
                for choice in event["choices"]:
                    text += choice["text"]
                    finish = choice["finish_reason"] or finish
        return text, finish

    def all(self, meanwhile: Callable[[Streams], None]) -> list[tuple[str, str]]:
        """The answers to the same questions, asked over and over until `meanwhile` is over."""
        with ThreadPoolExecutor(N_STREAMS) as pool:
            asked = [pool.submit(self.again_and_again, i) for i in range(N_STREAMS)]
            try:
                meanwhile(self)
            finally:
                self.is_over = True
            return [one.result(PATIENCE_S) for one in asked]

    def again_and_again(self, i: int) -> tuple[str, str]:
        """The one answer to a question that is asked until it is over."""
        first = self.one(i)
        while not self.is_over:
            assert self.one(i) == first
        return first

    def wait_for(self, n: int) -> None:
        """Until each stream has had some more parts."""
        goals = [had + n for had in self.n_parts]
        until_s = time.monotonic() + PATIENCE_S
        while any(n < goal for n, goal in zip(self.n_parts, goals, strict=True)):
            assert time.monotonic() < until_s, self.n_parts
            time.sleep(0.005)


def dllama_nodes(server: Server, *words: str, key: str = KEY) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "dllama", "nodes", *words, "--url", server.url, "--api-key", key],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )


def told(server: Server) -> list[tuple[str, int | None]]:
    """The state and the rank of each node, as the command says."""
    done = dllama_nodes(server, "list", "--json")
    nodes = json.loads(done.stdout)["nodes"] if done.returncode == 0 else []
    return [(node["state"], node["rank"]) for node in nodes]


def wait_until(server: Server, expected: list[tuple[str, int | None]]) -> None:
    until_s = time.monotonic() + PATIENCE_S
    while (now := told(server)) != expected:
        assert time.monotonic() < until_s, now
        time.sleep(0.1)


def engine_of(server: Server) -> psutil.Process:
    children = psutil.Process(server.program.process.pid).children()
    return next(c for c in children if "dllama.cli.server.engine" in " ".join(c.cmdline()))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("nodes") / "toy.gguf"
    return write_toy(path, qtype=QType.Q8_0, n_layers=2, max_seq_len=2048)


@pytest.fixture(scope="module")
def undisturbed(model: Path) -> list[tuple[str, str]]:
    with root(model.parent, model, "--api-key", KEY) as server:
        refused = dllama_nodes(server, "add", "127.0.0.1:1")
        assert refused.returncode == 1 and "start it again with --workers" in refused.stderr
        assert told(server) == [("present", 0)]
        texts = Streams(server.url).all(lambda streams: None)
    assert [finish for _, finish in texts] == ["length"] * N_STREAMS
    return texts


@pytest.fixture
def ports(tmp_path: Path) -> Iterator[tuple[int, int, dict[int, Program]]]:
    """Two ports, and the workers that listen there."""
    first, second = own_worker_port(), own_worker_port()
    workers = {port: start_worker(tmp_path, port) for port in (first, second)}
    yield first, second, workers
    for worker in workers.values():
        worker.stop()


def test_a_worker_is_added_and_removed_under_streams(
    tmp_path: Path,
    model: Path,
    undisturbed: list[tuple[str, str]],
    ports: tuple[int, int, dict[int, Program]],
) -> None:
    first, second = (f"127.0.0.1:{port}" for port in ports[:2])
    with root(tmp_path, model, "--workers", first, "--shares", "equal", "--api-key", KEY) as server:
        assert told(server) == [("present", 0), ("present", 1)]

        def change(streams: Streams) -> None:
            streams.wait_for(8)
            done = dllama_nodes(server, "add", second, "--share", "0.5")
            assert done.returncode == 0, done.stderr
            assert "is taken in; the root has 2 workers" in done.stderr
            wait_until(server, [("present", 0), ("present", 1), ("present", 2)])
            streams.wait_for(8)
            done = dllama_nodes(server, "remove", first)
            assert done.returncode == 0, done.stderr
            assert told(server) == [("present", 0), ("present", 1)], "it is gone when it is said"
            streams.wait_for(8)
            engine_of(server).kill()
            streams.wait_for(8)
            wait_until(server, [("present", 0), ("present", 1)])

        assert Streams(server.url).all(change) == undisturbed
        table = dllama_nodes(server).stdout
        assert second in table and first not in table and "present" in table
        for words, said in (
            (("add", second), "known already and is present"),
            (("add", "no-such-host.invalid"), "was not added"),
            (("add", f"127.0.0.1:{own_port()}"), "was not added"),
            (("add", second.replace("127.0.0.1", "localhost")), "the same worker as"),
            (("remove", first), "there is no worker"),
            (("add", "a b"), "is no worker address"),
        ):
            done = dllama_nodes(server, *words)
            assert done.returncode == 1 and said in done.stderr, done.stderr
        assert told(server) == [("present", 0), ("present", 1)]
        refused = dllama_nodes(server, key="another")
        assert refused.returncode == 1 and "API key" in refused.stderr


def test_a_root_whose_workers_were_all_removed_stays_alone_until_one_is_added(
    tmp_path: Path, model: Path, ports: tuple[int, int, dict[int, Program]]
) -> None:
    first, second = (f"127.0.0.1:{port}" for port in ports[:2])
    words = ("--workers", first, "--shares", "equal", "--api-key", KEY)
    with root(tmp_path, model, *words) as server:
        assert dllama_nodes(server, "remove", first).returncode == 0
        assert told(server) == [("present", 0)]
        killed = engine_of(server)
        killed.kill()
        killed.wait(PATIENCE_S)
        wait_until(server, [("present", 0)])
        assert Streams(server.url).one(0)[1] == "length"
        assert first not in dllama_nodes(server).stdout
        assert dllama_nodes(server, "add", second).returncode == 0
        wait_until(server, [("present", 0), ("present", 1)])


def test_all_workers_are_restarted_one_after_the_other_under_streams(
    tmp_path: Path,
    model: Path,
    undisturbed: list[tuple[str, str]],
    ports: tuple[int, int, dict[int, Program]],
) -> None:
    both, workers = ports[:2], ports[2]
    names = ",".join(f"127.0.0.1:{port}" for port in both)
    whole = [("present", 0), ("present", 1), ("present", 2)]
    with root(tmp_path, model, "--workers", names, "--shares", "equal", "--api-key", KEY) as server:

        def restart(streams: Streams) -> None:
            for port in both:
                streams.wait_for(8)
                workers[port].stop()
                assert workers[port].process.returncode == 0, "it drained"
                workers[port] = start_worker(tmp_path, port)
                wait_until(server, whole)

        assert Streams(server.url).all(restart) == undisturbed
        _, stats = server.get("/health")
        assert stats == {"status": "ok"} and told(server) == whole
