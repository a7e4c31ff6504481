"""dllama plan over a real daemon: what is measured is only checked for what must hold."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cluster.root import measuring
from dllama.cli.main import start
from dllama.errors import DllamaError
from tests.cluster.worker_process import WorkerProcess
from tests.ports import own_port
from tests.programs import root, workers
from tests.toy_models import write_toy


def test_a_worker_is_measured_and_planned_with(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measuring, "MOST_BYTES", 16 << 20)
    toy = write_toy(tmp_path / "toy.gguf")
    worker = WorkerProcess()
    try:
        words = ["plan", "-m", str(toy), "-t", "1", "--workers", str(worker.address)]
        assert start([*words, "--json"]) == 0
        found = json.loads(capsys.readouterr().out)
        assert start([*words, "--use-all"]) == 0
        shown = capsys.readouterr().out
    finally:
        worker.end()
    assert found["is_simulated"] is False
    assert [node["node"] for node in found["nodes"]] == ["this machine", str(worker.address)]
    assert all(node["types"][0]["read_gb_per_s"] > 0 for node in found["nodes"])
    (link,) = found["links"]
    assert link["between"] == ["this machine", str(worker.address)]
    assert link["latency_p99_us"] >= link["latency_p50_us"] > 0
    assert [len(plan["nodes"]) for plan in found["plans"]] == [1, 2, 2]
    assert sum(plan["is_chosen"] for plan in found["plans"]) == 1
    assert "Simulated" not in shown and "<- used" in shown
    assert "is left out" not in shown  # --use-all


def test_a_worker_that_is_not_there_is_said(tmp_path: Path) -> None:
    toy = write_toy(tmp_path / "toy.gguf")
    with pytest.raises(DllamaError, match="nothing listens on that port"):
        start(["plan", "-m", str(toy), "--workers", f"127.0.0.1:{own_port()}"])


def test_a_server_leaves_a_useless_worker_out_and_says_why(tmp_path: Path) -> None:
    """By default: a toy is always faster on one machine. It is used where all are wanted."""
    toy = write_toy(tmp_path / "toy.gguf")
    body = {"prompt": "hello", "temperature": 0, "n_predict": 8}
    answers = []
    with workers(tmp_path, 1) as (address,):
        for words, n_ranks in (((), 1), (("--use-all",), 2)):
            with root(tmp_path, toy, "--workers", address, *words) as server:
                _, stats = server.get("/stats")
                _, answer = server.post("/completion", body)
                answers.append(answer["content"])
            assert len(stats["workers"]) == n_ranks
            assert [row["address"] for row in stats["unused_nodes"]] == [address] * (2 - n_ranks)
            for row in stats["unused_nodes"]:
                assert row["state"] == "left out" and "slow the answers down" in row["reason"]
            for row in stats["workers"]:
                assert row["predicted"]["tokens_per_s"] > 0
    assert answers[0] == answers[1]
