"""No command line of a process that dllama starts holds a cluster key: others can read it."""

from __future__ import annotations

from pathlib import Path
from typing import NoReturn

import pytest

from cluster.security.cluster_key import new_cluster_key
from dllama.cli.flags.arguments import DEFAULT_MODEL
from dllama.cli.flags.root import read_flags
from dllama.cli.flags.settings import EngineSettings
from dllama.cli.hybrid import child
from dllama.cli.main import start
from dllama.cli.work import bench
from dllama.errors import ConfigError


class Started(Exception):
    """A child would be started now."""


def test_children_are_told_the_key_by_their_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    seen: list[tuple[list[str], dict[str, str]]] = []

    def popen(command: list[str], *, env: dict[str, str], **_: object) -> None:
        seen.append((command, env))
        raise Started

    key = new_cluster_key().text()
    file = tmp_path / "key"
    file.write_text(key)
    monkeypatch.setattr(child.subprocess, "Popen", popen)
    with pytest.raises(Started):
        start(["up", "--cluster-key", f"@{file}", "--port", "0"])
    ((command, environment),) = seen
    assert key not in " ".join(command)
    assert environment["DLLAMA_CLUSTER_KEY"] == key


def test_the_engine_is_told_with_its_settings() -> None:
    key = new_cluster_key().text()
    engine = read_flags(["--cluster-key", key, "--no-encrypt", "--workers", "a"]).engine
    assert engine.cluster_key == key and not engine.encrypts
    assert type(engine).from_json(engine.to_json()) == engine


def test_a_wrong_key_is_not_repeated(capsys: pytest.CaptureFixture[str]) -> None:
    wrong = new_cluster_key().text()[:-1] + "!"
    with pytest.raises(SystemExit):
        read_flags(["--cluster-key", wrong])
    said = capsys.readouterr().err
    assert "as `dllama key`" in said or "that `dllama key`" in said
    assert wrong not in said and wrong[10:30] not in said


def test_bench_reaches_workers_as_the_root_does(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its settings are its own: what secures the links must be in them too."""
    seen: list[EngineSettings] = []

    def build(settings: EngineSettings, *_: object) -> NoReturn:
        seen.append(settings)
        raise ConfigError("enough")

    key = new_cluster_key().text()
    monkeypatch.setattr(bench, "build_runner", build)
    for words in (["--no-encrypt"], ["--cluster-key", key]):
        args = ["bench", "-m", str(DEFAULT_MODEL), "-p", "8", "-n", "8", *words]
        with pytest.raises(ConfigError):
            start(args)
    assert [(s.encrypts, s.cluster_key) for s in seen] == [(False, None), (True, key)]
