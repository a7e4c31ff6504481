"""A root that is started as llama-server is, from end to end."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from tests.programs import root
from tests.toy_models import write_toy

FLAGS = shlex.split("""
    --host 127.0.0.1,::1 --ctx-size 64 --parallel 2 -b 32 -fa on -ngl 99 --mlock --temp 0
    --seed 42 --n-predict 6 --alias mine,other --tags a,b --no-slots --metrics --props
    --no-jinja --cont-batching --threads-batch 2 --api-prefix /llm
""")


def test_a_start_with_llama_servers_flags(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLAMA_ARG_HOST", "192.0.2.1")  # which the flag replaces
    monkeypatch.setenv("LLAMA_ARG_TOP_K", "3")
    model = write_toy(tmp_path / "toy.gguf")
    with root(tmp_path, model, *FLAGS, prefix="/llm") as server:
        _, props = server.get("/props")
        told = props["default_generation_settings"]
        assert (told["n_ctx"], props["total_slots"], props["model_alias"]) == (32, 2, "mine")
        params = told["params"]
        assert (params["seed"], params["n_predict"], params["top_k"]) == (42, 6, 3)
        assert props["endpoint_slots"] is False and props["endpoint_props"] is True
        status, answer = server.post("/completion", {"prompt": "hello"})
        assert status == 200 and answer["tokens_predicted"] == 6 and answer["model"] == "mine"
        status, error = server.post("/completion", {"prompt": [65] * 40})
        assert (status, error["error"]["n_ctx"]) == (400, 32)
        log = server.program.log.read_text()
    [line] = [line for line in log.splitlines() if "taken, but without effect here" in line]
    assert all(name in line for name in ("-fa", "-ngl", "--mlock", "--metrics"))
