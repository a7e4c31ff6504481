"""Real programs are killed in the middle of streams of the official client; texts and usage are
those of an undisturbed run."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from dllama.qtypes import QType
from tests.ports import own_worker_port
from tests.programs import Program, Server, root, start_worker
from tests.toy_models import write_toy

openai = pytest.importorskip("openai", reason="the official client is a test extra")

pytestmark = pytest.mark.timeout(600)
PATIENCE_S = 180.0  # a limit for a hang, never waited for
N_TOKENS = 250
N_KILLS = 3
SCHEMA = {"type": "array", "items": {"type": "string"}, "minItems": 3}
QUESTIONS: list[dict[str, object]] = [
    {"extra_body": {"ignore_eos": True}, "seed": 1},
    {"extra_body": {"ignore_eos": True, "mirostat": 2, "repeat_penalty": 1.2}, "seed": 2},
    {"extra_body": {"ignore_eos": True}, "temperature": 0, "logprobs": True, "top_logprobs": 2},
    {"extra_body": {}, "seed": 4, "response_format": {
        "type": "json_schema", "json_schema": {"name": "list", "schema": SCHEMA}}},
]  # fmt: skip


@dataclass(frozen=True)
class Told:
    text: str
    logprobs: list[object]
    finish: str | None
    usage: tuple[int, int]


class Streams:
    """Four streams at once."""

    def __init__(self, url: str) -> None:
        self._url = url
        self.n_parts = [0] * len(QUESTIONS)

    def one(self, i: int) -> Told:
        text, logprobs, finish, usage = "", [], None, (0, 0)
        with openai.OpenAI(base_url=self._url + "/v1", api_key="none", max_retries=0) as client:
            for part in client.chat.completions.create(
                model="toy", messages=[{"role": "user", "content": f"hello {i}"}], stream=True,
                stream_options={"include_usage": True}, max_tokens=N_TOKENS,
                timeout=PATIENCE_S, **QUESTIONS[i],
            ):  # fmt: skip
                self.n_parts[i] += 1
                if part.usage is not None:
                    usage = part.usage.prompt_tokens, part.usage.completion_tokens
                for choice in part.choices:
                    text += choice.delta.content or ""
                    finish = choice.finish_reason or finish
                    logprobs += choice.logprobs.content if choice.logprobs else []
        return Told(text, logprobs, finish, usage)

    def all(self, meanwhile: Callable[[Streams], None]) -> list[Told]:
        with ThreadPoolExecutor(len(QUESTIONS)) as pool:
            asked = [pool.submit(self.one, i) for i in range(len(QUESTIONS))]
            meanwhile(self)
            return [one.result(PATIENCE_S) for one in asked]

    def wait_for(self, n: int) -> None:
        """Until each stream has had some more parts, or has ended."""
        goals = [had + n for had in self.n_parts]
        until_s = time.monotonic() + PATIENCE_S
        while any(n < goal for n, goal in zip(self.n_parts[:3], goals[:3], strict=True)):
            assert time.monotonic() < until_s, self.n_parts
            time.sleep(0.005)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("survival") / "toy.gguf"
    return write_toy(path, qtype=QType.Q8_0, n_layers=2, max_seq_len=2048)


@pytest.fixture(scope="module")
def alone(model: Path) -> Iterator[tuple[Server, list[Told]]]:
    """A root without workers, and what it says when nothing happens."""
    with root(model.parent, model) as server:
        yield server, Streams(server.url).all(lambda streams: None)


def engine_of(server: Server) -> psutil.Process:
    [engine] = [
        child
        for child in psutil.Process(server.program.process.pid).children()
        if "dllama.cli.server.engine" in " ".join(child.cmdline())
    ]
    return engine


def test_the_engine_is_killed_again_and_again(alone: tuple[Server, list[Told]]) -> None:
    server, expected = alone
    assert [told.finish for told in expected] == ["length", "length", "length", "stop"]

    def kill(streams: Streams) -> None:
        for _ in range(N_KILLS):
            streams.wait_for(8)
            os.kill(engine_of(server).pid, signal.SIGKILL)

    assert Streams(server.url).all(kill) == expected
    _, stats = server.get("/stats")
    assert stats["api"]["engine_restarts"]["total"] == N_KILLS
    assert stats["api"]["engine_restarts"]["seconds"] > 0.0


def test_a_worker_is_killed_and_started_again(
    tmp_path: Path, model: Path, alone: tuple[Server, list[Told]]
) -> None:
    _, expected = alone
    port = own_worker_port()
    workers: list[Program] = [start_worker(tmp_path, port)]
    try:
        with root(tmp_path, model, "--workers", f"127.0.0.1:{port}", "--shares", "equal") as server:

            def kill(streams: Streams) -> None:
                streams.wait_for(8)
                workers[-1].kill()
                workers.append(start_worker(tmp_path, port))
                streams.wait_for(8)
                os.kill(engine_of(server).pid, signal.SIGKILL)

            assert Streams(server.url).all(kill) == expected
    finally:
        for worker in workers:
            worker.stop()


def test_what_waits_too_long_ends_with_the_reason(tmp_path: Path, model: Path) -> None:
    port = own_worker_port()
    worker = start_worker(tmp_path, port)
    args = ["--workers", f"127.0.0.1:{port}", "--shares", "equal", "--max-recover-s", "1"]
    try:
        with root(tmp_path, model, *args) as server:
            found: list[tuple[int, dict[str, object]]] = []
            question = {"prompt": "hello", "ignore_eos": True, "max_tokens": 2000}
            asking = threading.Thread(
                target=lambda: found.append(server.post("/v1/completions", question))
            )
            asking.start()
            while not server.get("/stats")[1]["sequences"]["running"]:
                assert asking.is_alive(), found
            worker.kill()
            asking.join(PATIENCE_S)
            [(status, answer)] = found
            assert status == 503 and "--max-recover-s" in str(answer["error"]), answer
            assert server.get("/health")[0] == 503
            worker = start_worker(tmp_path, port)
            server.wait_until_ready()
            status, _ = server.post("/v1/completions", {**question, "max_tokens": 5})
            assert status == 200
    finally:
        worker.stop()
