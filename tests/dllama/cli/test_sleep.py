"""--sleep-idle-seconds with the real programs: memory is freed, on workers too, and service goes
on."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from dllama.cli.flags.root import build_parser
from dllama.cli.flags.server import server_settings
from tests.cluster.worker_process import listens
from tests.ports import own_worker_port
from tests.programs import Program, Server, root, start_worker
from tests.toy_models import write_toy

BODY = {"prompt": "hello", "temperature": 0, "n_predict": 12, "ignore_eos": True}
MIB = 1 << 20


def until(holds: Callable[[], bool], within_s: float = 30.0) -> None:
    until_s = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < until_s, "that did not happen in time"
        time.sleep(0.05)


def is_sleeping(server: Server) -> bool:
    return bool(server.get("/props")[1]["is_sleeping"])


def tree(pid: int) -> list[psutil.Process]:
    process = psutil.Process(pid)
    return [process, *process.children(recursive=True)]


def rss_bytes(pid: int) -> int:
    return sum(process.memory_info().rss for process in tree(pid))


def test_an_idle_root_frees_its_memory_and_wakes_for_the_next_request(tmp_path: Path) -> None:
    model = write_toy(tmp_path / "toy.gguf", dim=512, hidden_dim=2048, n_layers=4, n_heads=8)
    n_bytes = model.stat().st_size
    assert n_bytes > 50 * MIB
    with root(tmp_path, model, "--sleep-idle-seconds", "1") as server:
        pid = server.program.process.pid
        _, before = server.post("/completion", BODY)
        awake = rss_bytes(pid)
        until(lambda: is_sleeping(server))
        until(lambda: len(tree(pid)) == 1)
        assert awake - rss_bytes(pid) > n_bytes
        for path in ("/health", "/v1/models", "/stats"):
            assert server.get(path)[0] == 200
        assert server.get("/stats")[1]["steps"]["total"] > 0, "the last figures stay"
        assert is_sleeping(server)
        with ThreadPoolExecutor(4) as threads:
            replies = list(threads.map(lambda _: server.post("/completion", BODY), range(4)))
        assert [status for status, _ in replies] == [200] * 4
        assert {answer["content"] for _, answer in replies} == {before["content"]}
        assert len(tree(pid)) == 2 and not is_sleeping(server), "it was started once"
        until(lambda: is_sleeping(server))


def has_session(worker: Program) -> bool:
    """Whether a rank runs there; a process that is ready for the next one does not listen."""
    try:
        return any(listens(child) for child in psutil.Process(worker.process.pid).children())
    except psutil.NoSuchProcess:
        return False


def is_answered_with(server: Server, worker: Program) -> bool:
    """Asks, and returns whether the worker took part."""
    assert server.post("/completion", BODY)[0] == 200
    return has_session(worker)


def test_a_worker_ends_its_session_too_and_may_be_away_for_a_while(tmp_path: Path) -> None:
    model = write_toy(tmp_path / "toy.gguf")
    port = own_worker_port()
    worker = start_worker(tmp_path, port)
    args = ["--workers", f"127.0.0.1:{port}", "--shares", "equal", "--sleep-idle-seconds", "1"]
    try:
        with root(tmp_path, model, *args) as server:
            _, before = server.post("/completion", BODY)
            assert has_session(worker)
            until(lambda: is_sleeping(server))
            until(lambda: not has_session(worker))
            assert server.post("/completion", BODY)[1]["content"] == before["content"]
            until(lambda: is_sleeping(server))
            worker.stop()
            assert server.post("/completion", BODY)[1]["content"] == before["content"]
            assert not has_session(worker), "the root computes alone"
            worker = start_worker(tmp_path, port)
            until(lambda: is_answered_with(server, worker), 60.0)
            assert server.post("/completion", BODY)[1]["content"] == before["content"]
    finally:
        worker.stop()


@pytest.mark.parametrize(("text", "seconds"), [("-1", None), ("1", 1.0), ("0.5", 0.5)])
def test_the_flag_is_a_time_or_never(text: str, seconds: float | None) -> None:
    args = build_parser().parse_args(["--model", "a.gguf", "--sleep-idle-seconds", text])
    assert server_settings(args).sleep_idle_s == seconds
    assert server_settings(build_parser().parse_args(["--model", "a.gguf"])).sleep_idle_s is None


@pytest.mark.parametrize("text", ["0", "-2", "nan", "inf", "soon"])
def test_no_time_is_refused(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        build_parser().parse_args(["--model", "a.gguf", "--sleep-idle-seconds", text])
    assert "is no number of seconds above 0" in capsys.readouterr().err
