"""Temporary folders of killed processes are removed by the next, and no others."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from dllama.host.leftovers import LEAST_AGE_S, LOCK, HeldFolder, remove_leftovers

pytest.importorskip("fcntl", reason="locks as POSIX has them")

HOLDS = """
import sys
from dllama.host.leftovers import HeldFolder
folder = HeldFolder("dllama-", sys.argv[1])
(open(folder.name + "/engine", "w")).close()
print(folder.name, flush=True)
sys.stdin.read()
"""


def held_by_another(place: Path) -> tuple[subprocess.Popen[str], Path]:
    """Starts a process that holds a folder, and returns both."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDS, str(place)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        text=True,
    )  # fmt: skip
    assert process.stdout is not None
    return process, Path(process.stdout.readline().strip())


def make_old(folder: Path) -> None:
    when = folder.stat().st_mtime - 2 * LEAST_AGE_S
    os.utime(folder, (when, when))


def end(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.communicate()


def test_the_folder_of_a_killed_process_goes_and_that_of_a_living_one_stays(
    tmp_path: Path,
) -> None:
    killed, left = held_by_another(tmp_path)
    living, used = held_by_another(tmp_path)
    try:
        end(killed)
        remove_leftovers("dllama-", str(tmp_path))
        assert left.exists()  # it is young: another process may be about to lock it
        make_old(left)
        make_old(used)
        remove_leftovers("dllama-logs-", str(tmp_path))
        assert left.exists()
        remove_leftovers("dllama-", str(tmp_path))
        assert not left.exists()
        assert (used / "engine").exists()
    finally:
        end(living)


def test_what_no_process_of_ours_held_stays(tmp_path: Path) -> None:
    plain = tmp_path / "dllama-12345678"
    plain.mkdir()
    aim = tmp_path / "elsewhere"
    aim.mkdir()
    (aim / LOCK).touch()
    (tmp_path / "dllama-abcdefgh").symlink_to(aim)
    (tmp_path / "dllama-linklink").mkdir()
    (tmp_path / "dllama-linklink" / LOCK).symlink_to(aim / LOCK)
    (tmp_path / "dllama-afileafi").touch()
    for folder in (plain, aim, tmp_path / "dllama-linklink"):
        make_old(folder)
    remove_leftovers("dllama-", str(tmp_path))
    remove_leftovers("dllama-", str(tmp_path / "absent"))
    assert len(list(tmp_path.iterdir())) == 5
    assert (aim / LOCK).exists()


def test_a_held_folder_is_removed_at_its_end(tmp_path: Path) -> None:
    with HeldFolder("dllama-", str(tmp_path)) as name:
        make_old(Path(name))
        remove_leftovers("dllama-", str(tmp_path))
        assert Path(name).exists()
    assert not list(tmp_path.iterdir())
