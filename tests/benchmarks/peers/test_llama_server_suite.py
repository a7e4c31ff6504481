"""The stand-in for llama-server: what names a model is changed, and nothing else."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.peers.llama_server_stand_in import (
    CANNOT_RUN,
    MODEL_VARIABLE,
    NOTES_VARIABLE,
    CannotRun,
    translated,
)
from benchmarks.peers.llama_server_suite import fill_cache
from dllama.hub.hub_cache import cached_models
from dllama.hub.names import without_hub

REPOSITORY = Path(__file__).resolve().parents[3]


@pytest.mark.parametrize(
    "named",
    [
        ["--hf-repo", "ggml-org/test-model-stories260K"],
        ["--hf-repo", "ggml-org/models", "--hf-file", "tinyllamas/stories260K.gguf"],
        ["--model-url", "https://a.example/tinyllamas/stories260K.gguf"],
        [],
    ],
)
def test_the_tiny_model_is_the_local_file(named: list[str]) -> None:
    flags = ["--port", "80", *named, "--no-jinja", "--alias", "x"]
    wanted = ["--model", "here.gguf", "--port", "80", "--no-jinja", "--alias", "x"]
    assert translated(flags, "here.gguf", is_router=False) == wanted


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        (["--hf-repo", "ggml-org/tinygemma3-GGUF:Q8_0"], "needs the model ggml-org/tinygemma3"),
        (["--hf-repo", "ggml-org/test-model-stories260K-infill"], "needs the model"),
        (
            ["--model-draft", "/tmp/d.gguf", "--model", "x"],
            "needs the model of --model-draft d.gguf",
        ),
        (["--tools", "all"], "tools of llama-server"),
    ],
)
def test_other_models_cannot_be_run(flags: list[str], reason: str) -> None:
    with pytest.raises(CannotRun, match=reason):
        translated(flags, "here.gguf", is_router=False)


def test_a_router_has_no_model_of_its_own_and_may_download() -> None:
    wanted = ["--models-max", "4", "--port", "80"]
    assert translated(["--port", "80", "--offline"], "here.gguf", is_router=True) == wanted
    flags = ["--no-models-autoload", "--port", "80"]
    assert translated(flags, "here.gguf", is_router=True) == flags


def test_models_of_a_router_are_found_by_the_suites_names(tmp_path: Path) -> None:
    (tmp_path / "x.gguf").write_bytes(b"GGUF")
    fill_cache(tmp_path / "hub", tmp_path / "x.gguf")
    assert [without_hub(model.name) for model in cached_models(tmp_path / "hub")] == [
        "ggml-org/test-model-stories260K:F32",
        "ggml-org/test-model-stories260K-infill:F32",
        "ggml-org/tinygemma3-GGUF:Q8_0",
    ]


def test_the_reason_is_noted(tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    environment = {
        MODEL_VARIABLE: "x.gguf", NOTES_VARIABLE: str(notes), "PYTHONPATH": str(REPOSITORY),
    }  # fmt: skip
    program = [sys.executable, "-m", "benchmarks.peers.llama_server_stand_in"]
    run = subprocess.run([*program, "--lora", "a/b.gguf"], env=environment, check=False)
    assert run.returncode == CANNOT_RUN
    assert notes.read_text() == "needs the model of --lora b.gguf\n"


# A suite of one file, as llama.cpp's is laid out.
TESTS = """
import wget, utils, pytest
def test_good(): utils.ServerPreset.load_all()
def test_bad(): assert 1 == 2
def test_download(): wget.download("https://a.example/m.gguf")
"""


def test_a_suite_is_told_by_file_and_outcome(tmp_path: Path) -> None:
    pytest.importorskip("wget", reason="llama.cpp's suite needs it")
    pytest.importorskip("pytest_timeout", reason="a test of the suite has a limit")
    suite = tmp_path / "llama.cpp" / "tools" / "server" / "tests"
    (suite / "unit").mkdir(parents=True)
    (tmp_path / "llama.cpp" / "models").mkdir()
    (suite / "utils.py").write_text("class ServerPreset:\n  def load_all(): raise OSError\n")
    (suite / "conftest.py").write_text("")
    (suite / "unit" / "test_one.py").write_text(TESTS)
    (tmp_path / "x.gguf").write_bytes(b"GGUF")
    program = [
        sys.executable, "-m", "benchmarks.peers.llama_server_suite", suite, tmp_path / "x.gguf",
    ]  # fmt: skip
    run = subprocess.run(
        [*program, "--json", tmp_path / "found.json"], cwd=REPOSITORY, capture_output=True,
        text=True, timeout=120, check=True,
    )  # fmt: skip
    assert "test_one                                   1           1           0           1" in (
        run.stdout
    )
    found = {line["test"].split("::")[1]: line for line in json.loads(
        (tmp_path / "found.json").read_text())}  # fmt: skip
    assert found["test_bad"]["outcome"] == "failed"
    assert found["test_download"]["reason"] == "downloads m.gguf"
    assert not (suite / "tmp").exists()
