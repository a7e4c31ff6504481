"""Logs of a whole cluster as JSON: every line of every process, and one request in all of them."""

from __future__ import annotations

import json
import time
import urllib.request
from pathlib import Path

import pytest

from tests.ports import own_port
from tests.programs import Program, server
from tests.toy_models import write_toy

JSON = ("--log-format", "json", "--log-level", "debug")
SECRET = "a word that is in no log"


def lines_of(path: Path) -> list[dict]:
    """Every line of a log; fails where one is no object."""
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.timeout(300)
def test_a_request_is_found_in_the_logs_of_root_engine_and_workers(tmp_path: Path) -> None:
    model, port = write_toy(tmp_path / "toy.gguf"), own_port()
    words = ("worker", "--host", "127.0.0.1", "--port", str(port), "--threads", "1")
    worker = Program(tmp_path / "worker.log", *words, *JSON)
    try:
        flags = ("--model", str(model), "--workers", f"127.0.0.1:{port}", "--shares", "equal")
        with server(tmp_path, *flags, *JSON) as root:
            asked = urllib.request.Request(
                root.url + "/v1/completions",
                json.dumps({"prompt": SECRET, "max_tokens": 3, "model": "toy"}).encode(),
                {"Content-Type": "application/json", "X-Request-Id": "from-the-client"},
            )
            with urllib.request.urlopen(asked, timeout=60) as answer:
                assert answer.headers["X-Request-Id"] == "from-the-client"
            until = time.monotonic() + 60  # it answers before it has said so
            while "is served at" not in root.program.log.read_text() and time.monotonic() < until:
                time.sleep(0.05)
    finally:
        worker.stop()
    at_root, at_worker = lines_of(root.program.log), lines_of(worker.log)
    assert all({"time", "level", "logger", "message"} <= set(line) for line in at_root + at_worker)
    assert SECRET not in json.dumps(at_root + at_worker)
    found = [one for one in at_root + at_worker if one.get("request_id") == "from-the-client"]
    assert {(one["logger"], one.get("rank"), one["model"]) for one in found} == {
        ("api.http.request_log", None, "toy"),
        ("dllama.engine.request_log", 0, "toy"),
        ("cluster.worker.session", 1, "toy"),
    }
    assert any("is served at" in one["message"] for one in at_root)
