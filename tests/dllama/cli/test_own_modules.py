"""A folder whose files are called like our modules, or like Python's: none of them is run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from dllama.host.child_python import HOUSE
from tests.ports import own_worker_port
from tests.programs import root, start_worker
from tests.toy_models import write_toy

SHADOWS = (
    "api", "cluster", "kernels", "queue", "numpy", "numba", "zmq", "socket", "asyncio", "tempfile",
    "json", "aiohttp", "secrets", "psutil", "rich",
)  # fmt: skip


@pytest.fixture
def trap(tmp_path: Path) -> Path:
    """A folder full of such names; whatever is run of it leaves a file "run"."""
    folder = tmp_path / "trap"
    folder.mkdir()
    for i, name in enumerate(SHADOWS):
        where = folder / name / "__init__.py" if i % 2 else folder / f"{name}.py"
        where.parent.mkdir(exist_ok=True)
        where.write_text(f"open({str(tmp_path / 'run')!r}, 'a').write('{name} ')\n1 / 0\n")
    return folder


@pytest.mark.parametrize(
    "paths", [[str(HOUSE)], ["", str(HOUSE)], [str(HOUSE), ""]], ids=["plain", "before", "after"]
)
def test_a_command_runs_its_own_modules(tmp_path: Path, trap: Path, paths: list[str]) -> None:
    """Also where an empty entry of PYTHONPATH means the folder itself, as in "$PYTHONPATH:/x"."""
    done = subprocess.run(
        [sys.executable, "-m", "dllama", "inspect", str(write_toy(tmp_path / "toy.gguf"))],
        cwd=trap, env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)}, text=True,
        capture_output=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "run").exists(), (tmp_path / "run").read_text()


def test_packages_of_our_names_in_pythonpath_do_not_hide_ours(tmp_path: Path) -> None:
    """Common words: any other project may have a package `api`."""
    other = tmp_path / "other"
    for name in ("api", "cluster", "kernels"):
        (other / name).mkdir(parents=True)
        (other / name / "__init__.py").write_text("1 / 0\n")
    code = "import dllama.cli, api, cluster, kernels; print(api.__file__, cluster.__file__)"
    environment = {**os.environ, "PYTHONPATH": f"{other}{os.pathsep}{HOUSE}"}
    shown = subprocess.check_output(
        [sys.executable, "-P", "-c", code], env=environment, cwd=tmp_path, text=True
    )
    assert all(Path(word).is_relative_to(HOUSE) for word in shown.split())


def test_a_cluster_starts_in_such_a_folder(
    tmp_path: Path, trap: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The daemon, its session, the root and its engine; with a TMPDIR too long for a socket, and
    settings of Python that are for a person."""
    toy = write_toy(tmp_path / "toy.gguf")
    long = tmp_path / ("x" * 120)
    long.mkdir()
    startup = tmp_path / "startup.py"
    startup.write_text("1 / 0\n")
    for name, value in {
        "TMPDIR": str(long), "PYTHONPATH": f"{os.pathsep}{HOUSE}", "PYTHONSTARTUP": str(startup),
        "PYTHONINSPECT": "1", "PYTHONIOENCODING": "ascii",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(trap)
    port = own_worker_port()
    worker = start_worker(tmp_path, port)
    try:
        with root(tmp_path, toy, "--workers", f"127.0.0.1:{port}", "--shares", "equal") as server:
            status, answer = server.post("/v1/completions", {"prompt": "a", "max_tokens": 3})
            assert status == 200, answer
            _, stats = server.get("/stats")
        assert len(stats["workers"]) == 2
    finally:
        worker.stop()
    assert not (tmp_path / "run").exists(), (tmp_path / "run").read_text()
    assert not list(long.iterdir()), "the socket's folder was elsewhere, and no file was left"
