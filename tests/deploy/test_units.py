"""Units for systemd: hardened, with time to end, and no flag or program that does not exist."""

from __future__ import annotations

import re
import shutil
import subprocess
import tomllib
from collections import defaultdict
from pathlib import Path

import pytest

from cluster.worker.daemon import DRAIN_S
from dllama.cli.command_table import all_parsers
from dllama.cli.flags.settings import DEFAULT_DRAIN_S
from dllama.cli.sources.variables import level_of_variables, unknown_variables
from tests.deploy.commands import DEPLOY, HOUSE, PARSERS, seconds

UNITS = sorted((DEPLOY / "systemd").glob("*.service"))
MAX_EXPOSURE = 20  # tenths; a unit without any of it has 96
MIN_VERSION = 250  # of systemd-analyze: security --offline


def settings(unit: Path) -> dict[str, list[str]]:
    found = defaultdict(list)
    for line in unit.read_text().splitlines():
        key, is_setting, value = line.partition("=")
        if is_setting and not line.startswith("#"):
            found[key].append(value)
    return found


def analyze(*words: str) -> subprocess.CompletedProcess[str]:
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip("systemd-analyze is not installed: the units were only read")
    shown = subprocess.run(
        [program, "--version"], capture_output=True, text=True, check=True
    ).stdout
    version = re.search(r"systemd (\d+)", shown)
    if version is None or int(version[1]) < MIN_VERSION:
        pytest.skip(f"systemd-analyze is older than {MIN_VERSION}: the units were only read")
    return subprocess.run([program, *words], capture_output=True, text=True, timeout=60)


@pytest.fixture(params=UNITS, ids=lambda unit: unit.stem)
def unit(request: pytest.FixtureRequest) -> Path:
    return request.param


def test_there_is_a_unit_of_each_program(unit: Path) -> None:
    assert {one.stem for one in UNITS} == {"dllama-root", "dllama-worker"}
    found = settings(unit)
    [command] = found["ExecStart"]
    program = command
    scripts = tomllib.loads((HOUSE / "pyproject.toml").read_text())["project"]["scripts"]
    assert Path(program).name == unit.stem and unit.stem in scripts
    [file] = found["EnvironmentFile"]
    assert file == f"-/etc/dllama/{unit.stem.removeprefix('dllama-')}.env"


def test_a_unit_ends_gently(unit: Path) -> None:
    """The processes of a program are the program's to end; and one of them that dies is not all."""
    found = settings(unit)
    assert found["KillMode"] == ["mixed"] and found["OOMPolicy"] == ["continue"]
    assert seconds(found["TimeoutStopSec"][0]) > max(DEFAULT_DRAIN_S, DRAIN_S)


def test_kernels_may_be_compiled(unit: Path) -> None:
    assert settings(unit)["MemoryDenyWriteExecute"] == ["no"]


def test_systemd_finds_nothing_wrong_with_a_unit_and_it_is_hardened(
    unit: Path, tmp_path: Path
) -> None:
    own = tmp_path / unit.name
    own.write_text(re.sub(r"(?m)^ExecStart=\S+", "ExecStart=/bin/true", unit.read_text()))
    done = analyze("verify", str(own))
    assert done.returncode == 0 and unit.name not in done.stderr, done.stderr
    threshold = f"--threshold={MAX_EXPOSURE}"
    done = analyze("security", "--no-pager", "--offline=true", threshold, str(own))
    assert done.returncode == 0, done.stdout


def test_the_variables_that_the_document_shows_for_units_are_flags() -> None:
    shown = re.findall(r"(?m)^(DLLAMA_\w+)=(.*)$", (HOUSE / "docs" / "deploy.md").read_text())
    variables = dict(shown)
    assert {"DLLAMA_WORKER_PORT", "DLLAMA_MODELS_DIR", "DLLAMA_WORKERS"} <= set(variables)
    assert not unknown_variables(dict(all_parsers()), variables)
    for program, build in PARSERS.items():
        level_of_variables(build(), program.removeprefix("dllama-"), variables)
