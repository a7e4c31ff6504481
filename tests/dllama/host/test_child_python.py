"""The command and the environment of our own children."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from dllama.host import child_python
from dllama.host.child_python import HOUSE, child_command, child_environment


def paths(given: dict[str, str]) -> list[str]:
    return child_environment(given)["PYTHONPATH"].split(os.pathsep)


def test_a_child_imports_from_where_we_do(tmp_path: Path) -> None:
    """In a folder that holds another package of that name."""
    (tmp_path / "dllama").mkdir()
    (tmp_path / "dllama" / "__init__.py").write_text("1 / 0\n")
    command = child_command("dllama")
    shown = subprocess.run(
        [*command, "--help"], env=child_environment(), cwd=tmp_path, capture_output=True, text=True
    )
    assert shown.returncode == 0 and "usage: dllama" in shown.stdout


def test_entries_that_mean_the_current_folder_are_left_out() -> None:
    assert paths({"PYTHONPATH": os.pathsep.join(["", "/a", ".", "b", "/c", ""])}) == [
        str(HOUSE), "/a", "/c",
    ]  # fmt: skip
    assert paths({}) == [str(HOUSE)]


def test_an_installed_package_is_not_put_before_the_standard_library(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(child_python.site, "getsitepackages", lambda: [str(HOUSE)])
    assert paths({"PYTHONPATH": "/a"}) == ["/a"]


def test_settings_for_a_person_are_not_handed_on() -> None:
    given = {"PYTHONSTARTUP": "/s.py", "PYTHONINSPECT": "1", "PYTHONIOENCODING": "x", "LANG": "C"}
    found = child_environment(given)
    assert set(found) == {"LANG", "PYTHONPATH", "PYTHONSAFEPATH"}
