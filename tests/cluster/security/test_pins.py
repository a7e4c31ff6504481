"""Keys of other nodes are pinned at first sight, and a change names the line to remove."""

from __future__ import annotations

import os
import shlex
import socket
import stat
import subprocess
from pathlib import Path

import pytest

from cluster.security import pins as pins_module
from cluster.security.keys import new_pair
from cluster.security.pins import Pins
from dllama.errors import ConfigError

ONE, OTHER = new_pair().public, new_pair().public


def test_a_key_is_pinned_once_and_another_is_complained_of(tmp_path: Path) -> None:
    pins = Pins(tmp_path / "a home" / "known_nodes", "workers")
    assert pins.complaint("a:1", ONE) == ""
    assert pins.add("a:1", ONE) and pins.add("b:1", OTHER)
    assert pins.complaint("a:1", ONE) == pins.complaint("b:1", OTHER) == ""
    assert pins.add("b:1", ONE)  # what is known stays
    complaint = pins.complaint("b:1", ONE)
    assert f"is kept on {socket.gethostname()}" in complaint
    assert f"remove line 3 of {pins.path} there: " in complaint
    lines = pins.path.read_text().splitlines()
    assert lines[2] == f"b:1 {OTHER}"
    assert stat.S_IMODE(pins.path.stat().st_mode) == 0o600
    command = complaint.partition(" there: ")[2]
    assert subprocess.run(shlex.split(command), timeout=60, check=False).returncode == 0
    assert pins.path.read_text().splitlines() == lines[:2]
    assert pins.complaint("b:1", ONE) == ""


def test_a_line_that_is_none_is_said(tmp_path: Path) -> None:
    pins = Pins(tmp_path / "known_nodes", "workers")
    pins.path.write_text(f"# a comment\n\na:1 {ONE}\nnonsense\n")
    with pytest.raises(ConfigError, match=r"line 4 of .*known_nodes is no address and key"):
        pins.of("a:1")


def test_strangers_do_not_fill_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pins_module, "MAX_PINS", 3)
    pins = Pins(tmp_path / "known_roots", "roots")
    assert [pins.add(f"10.0.0.{i}", ONE) for i in range(5)] == [True] * 3 + [False] * 2
    assert len(pins.path.read_text().splitlines()) == 4


def test_a_file_that_cannot_be_read_is_said(tmp_path: Path) -> None:
    pins = Pins(tmp_path, "workers")
    with pytest.raises(ConfigError, match="cannot be read and written"):
        pins.of("a:1")


def test_half_a_line_on_a_full_disk_is_taken_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pins = Pins(tmp_path / "known_roots", "roots")
    assert pins.add("a:1", ONE)
    write = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: write(fd, data[: len(data) // 2]))
    with pytest.raises(ConfigError, match="No space left"):
        pins.add("b:1", OTHER)
    monkeypatch.undo()
    assert pins.complaint("a:1", ONE) == "" and pins.add("b:1", OTHER)
