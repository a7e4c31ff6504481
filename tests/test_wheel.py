"""The wheel holds all that an answer needs: it is built, installed elsewhere, and asked."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from zipfile import ZipFile

import pytest

from api.http.page import NAMES
from dllama.cli.flags.arguments import DEFAULT_MODEL

HOUSE = Path(__file__).parents[1]
PACKAGES = ("dllama", "kernels", "cluster", "api")
QUESTION = "What is dllama?"
SETUPTOOLS = 77  # what pyproject.toml asks for; an older one needs another from the registry


def run(*command: str, cwd: Path, **environment: str) -> str:
    """What a command writes to stdout; fails with what it wrote to stderr."""
    kept = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, *command], cwd=cwd, env=kept | environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this tree, built in a copy of it."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    for package in PACKAGES:
        shutil.copytree(
            HOUSE / package, source / package, ignore=shutil.ignore_patterns("__pycache__")
        )
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(HOUSE / name, source)
    is_new = int(version("setuptools").split(".")[0]) >= SETUPTOOLS
    isolation = ["--no-build-isolation"] if is_new else []
    words = ["-m", "pip", "wheel", "--quiet", "--disable-pip-version-check", "--no-deps"]
    run(*words, *isolation, "--wheel-dir", str(folder), str(source), cwd=folder)
    [built] = folder.glob("dllama-*.whl")
    return built


def test_a_wheel_holds_every_file_of_every_package_and_nothing_else(wheel: Path) -> None:
    """The page and the model among them, and every program."""
    with ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}
        [entries] = [name for name in archive.namelist() if name.endswith("entry_points.txt")]
        programs = archive.read(entries).decode()
    files = (path for p in PACKAGES for path in (HOUSE / p).rglob("*") if path.is_file())
    assert held == {str(f.relative_to(HOUSE)) for f in files if f.parent.name != "__pycache__"}
    assert {f"api/page/{name}" for name in NAMES} <= held
    assert str(DEFAULT_MODEL.relative_to(HOUSE)) in held
    for program in ("dllama", "dllama-root", "dllama-worker"):
        assert f"{program} = " in programs


@pytest.mark.timeout(600)  # kernels in another place are compiled anew
def test_an_installed_wheel_answers(wheel: Path, tmp_path: Path) -> None:
    """As the checkout does, letter for letter, by the model that comes with it."""
    site, elsewhere = tmp_path / "site", tmp_path / "elsewhere"
    elsewhere.mkdir()
    words = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
    run(*words, "--target", str(site), str(wheel), cwd=elsewhere)
    code = "import api, cluster, dllama, kernels\n"
    code += "print(api.__file__, cluster.__file__, dllama.__file__, kernels.__file__, sep='\\n')"
    shown = run("-c", code, cwd=elsewhere, PYTHONPATH=str(site))
    assert all(Path(line).is_relative_to(site) for line in shown.splitlines())
    command = [str(site / "bin" / "dllama"), "run", "--temperature", "0", QUESTION]
    answer = run(*command, cwd=elsewhere, PYTHONPATH=str(site))
    golden = json.loads(Path(__file__).with_name("golden_answers.json").read_text())
    assert answer.strip() == golden[QUESTION]
