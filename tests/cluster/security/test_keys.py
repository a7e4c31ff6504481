"""A node's key pair is made once, whole, for its owner's eyes."""

from __future__ import annotations

import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from cluster.security.home import home_folder
from cluster.security.keys import KEY_FILE, new_pair, node_pair
from dllama.errors import ConfigError


def test_a_pair_is_made_once_and_only_its_owner_reads_it(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "home"
    pair = node_pair(folder)
    assert node_pair(folder) == pair
    assert stat.S_IMODE((folder / KEY_FILE).stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert [path.name for path in folder.iterdir()] == [KEY_FILE]


def test_processes_that_start_at_once_agree(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        pairs = list(pool.map(node_pair, [tmp_path] * 32))
    assert len(set(pairs)) == 1


def test_a_secret_key_shows_in_no_text() -> None:
    pair = new_pair()
    assert pair.secret not in repr(pair) and pair.public in repr(pair)


@pytest.mark.parametrize("text", ["", "x", "a\nb\nc", "\x00" * 100], ids=repr)
def test_a_damaged_file_is_said(tmp_path: Path, text: str) -> None:
    node_pair(tmp_path)
    (tmp_path / KEY_FILE).write_text(text)
    with pytest.raises(ConfigError, match=r"node_key holds no key pair.* Delete it"):
        node_pair(tmp_path)


def test_halves_that_do_not_fit_are_said(tmp_path: Path) -> None:
    node_pair(tmp_path)
    (tmp_path / KEY_FILE).write_text(f"{new_pair().public}\n{new_pair().secret}\n")
    with pytest.raises(ConfigError, match="holds no key pair"):
        node_pair(tmp_path)


def test_a_file_that_others_can_read_is_refused(tmp_path: Path) -> None:
    node_pair(tmp_path)
    (tmp_path / KEY_FILE).chmod(0o644)
    with pytest.raises(ConfigError, match=r"can be read by other users \(mode 644\)"):
        node_pair(tmp_path)


def test_a_folder_that_cannot_be_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"cannot keep the key of this node .* DLLAMA_HOME"):
        node_pair(tmp_path / "file")


def test_the_folder_is_the_users(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DLLAMA_HOME", str(tmp_path))
    assert home_folder() == tmp_path
    monkeypatch.delenv("DLLAMA_HOME")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert home_folder() == tmp_path / "dllama"
    monkeypatch.setenv("XDG_CONFIG_HOME", "not/absolute")
    monkeypatch.setenv("HOME", str(tmp_path))
    if os.name == "posix":
        assert home_folder() == tmp_path / ".config" / "dllama"
