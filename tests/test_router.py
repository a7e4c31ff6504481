"""A server of many models with the real programs: engines in processes, and a worker they share."""

from __future__ import annotations

import json
import os
import signal
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from tests.programs import Server, server, workers
from tests.toy_models import write_toy

pytestmark = pytest.mark.timeout(600)
NAMES = [f"toy{i}" for i in range(5)]
MAX_MODELS = 2


@pytest.fixture(scope="module")
def router(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Five toys, of which two are loaded at once, on this machine and a worker."""
    folder = tmp_path_factory.mktemp("router")
    models = folder / "models"
    models.mkdir()
    for seed, name in enumerate(NAMES):
        write_toy(models / f"{name}.gguf", seed=seed, max_seq_len=2048)
    preset = folder / "models.ini"
    preset.write_text("[*]\nctx-size = 1024\n[toy1]\nalias = second\ntemp = 0\nn-predict = 5\n")
    with workers(folder, 1) as [address]:
        flags = ("--models-dir", str(models), "--models-preset", str(preset), "--models-max",
                 str(MAX_MODELS), "--workers", address, "--shares", "equal")  # fmt: skip
        with server(folder, *flags) as found:
            yield found


def engines(router: Server) -> list[psutil.Process]:
    """The processes of the router's engines, the oldest first; one that is about to begin too."""
    children = psutil.Process(router.program.process.pid).children()
    return sorted(children, key=lambda child: child.create_time())


def complete(router: Server, model: str, **body: object) -> tuple[int, dict]:
    asked = {"prompt": "hello", "temperature": 0, "max_tokens": 8, **body}
    return router.post("/v1/completions", {"model": model, **asked})


def loaded(router: Server) -> list[str]:
    rows = router.get("/models")[1]["data"]
    return [row["id"] for row in rows if row["status"]["value"] == "loaded"]


def test_forty_requests_over_five_models_of_which_two_are_loaded(router: Server) -> None:
    asked = [NAMES[i % 5] for i in range(40)]
    with ThreadPoolExecutor(40) as pool:
        answers = list(pool.map(lambda name: complete(router, name), asked))
    texts: dict[str, set[str]] = {}
    for name, (status, answer) in zip(asked, answers, strict=True):
        assert status == 200 and answer["model"] == name, answer
        texts.setdefault(name, set()).add(answer["choices"][0]["text"])
    assert all(len(found) == 1 for found in texts.values()), "every model says its own"
    assert len({next(iter(found)) for found in texts.values()}) == 5
    assert 1 <= len(loaded(router)) <= MAX_MODELS
    _, stats = router.get("/stats")
    assert stats["n_waiting"] == 0 and stats["api"]["open_requests"] == 0
    _, of_one = router.get(f"/stats?model={loaded(router)[-1]}")
    assert of_one["world_size"] == 2, "its own session on the worker"
    status, answer = router.post("/completion", {"model": "second", "prompt": "hello"})
    assert status == 200 and answer["tokens_predicted"] == 5 and answer["model"] == "toy1"


def stream(router: Server, model: str, n_tokens: int) -> Iterator[str]:
    """The texts of a stream as they come."""
    body = {"model": model, "prompt": "hello", "temperature": 0, "max_tokens": n_tokens,
            "ignore_eos": True, "stream": True}  # fmt: skip
    request = urllib.request.Request(
        router.url + "/v1/completions", json.dumps(body).encode(),
        {"Content-Type": "application/json"},
    )  # fmt: skip
    with urllib.request.urlopen(request, timeout=120) as answer:
        for line in answer:
            if line.startswith(b"data: {"):
                told = json.loads(line.removeprefix(b"data: "))
                assert "error" not in told, told
                yield told["choices"][0]["text"]


def test_an_engine_that_is_killed_takes_no_other_along_and_loses_no_answer(router: Server) -> None:
    """Both models answer while the process of one is killed: neither answer differs by a byte."""
    names = NAMES[2:4]
    wanted = {name: "".join(stream(router, name, 200)) for name in names}
    streams = {name: stream(router, name, 200) for name in names}
    begun = {name: next(answer) for name, answer in streams.items()}
    os.kill(engines(router)[0].pid, signal.SIGKILL)
    with ThreadPoolExecutor(2) as pool:
        rests = dict(zip(names, pool.map(lambda name: "".join(streams[name]), names), strict=True))
    assert {name: begun[name] + rests[name] for name in names} == wanted
    after = {name: router.get(f"/stats?model={name}")[1] for name in names}
    restarts = [after[name]["api"]["engine_restarts"]["total"] for name in names]
    assert sorted(restarts) == [0, 1]


def test_what_is_unloaded_leaves_no_process(router: Server) -> None:
    for name in loaded(router):
        assert router.post("/models/unload", {"model": name})[0] == 200
    until_s = time.monotonic() + 60.0
    while len(engines(router)) > 1:  # one waits for the next model
        assert time.monotonic() < until_s, engines(router)
        time.sleep(0.05)
    assert not loaded(router)


def test_what_is_wrong_with_one_model_takes_no_other_along(tmp_path: Path) -> None:
    """A section with an unknown flag, one of a model that is not downloaded, and a file that is cut
    off: the server starts, says so once, and serves the rest."""
    models = tmp_path / "models"
    models.mkdir()
    for name in ("good", "cut", "odd"):
        write_toy(models / f"{name}.gguf", max_seq_len=1024)
    data = (models / "cut.gguf").read_bytes()
    (models / "cut.gguf").write_bytes(data[:-1000])
    preset = tmp_path / "models.ini"
    preset.write_text(
        "[odd]\nmagic = 1\nload-on-startup = true\n[coder]\nhf-repo = nobody/nothing:Q8_0\n"
        f"[gone]\nmodel = {tmp_path / 'gone.gguf'}\nload-on-startup = true\n"
    )
    with server(tmp_path, "--models-dir", str(models), "--models-preset", str(preset)) as router:
        assert complete(router, "good")[0] == 200
        rows = {row["id"]: row["status"] for row in router.get("/models?reload=1")[1]["data"]}
        told = {"odd": "magic is no flag", "cut": "It is truncated", "gone": "gone.gguf"}
        for name, reason in told.items():
            assert rows[name]["failed"] and reason in rows[name]["reason"]
            status, answer = complete(router, name)
            assert status == 503 and reason in answer["error"]["message"]
        assert rows["coder"]["downloaded"] is False and "failed" not in rows["coder"]
        status, answer = complete(router, "coder")
        assert status == 404 and '"hf.co/nobody/nothing:Q8_0"' in answer["error"]["message"]
        said = router.program.log.read_text()
        for name in (*told, "coder"):
            assert said.count(f"the model {name} cannot be loaded: ") == 1, said
        preset.write_text("")
        (models / "cut.gguf").write_bytes(data)
        assert router.get("/models?reload=1")[0] == 200
        for name in ("good", "odd", "cut"):
            assert complete(router, name)[0] == 200
