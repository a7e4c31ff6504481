"""Temporary folders and files, wherever there is room for them."""

from __future__ import annotations

import os
import shutil
import socket
from pathlib import Path

import pytest

from dllama.errors import ConfigError
from dllama.host import temporary
from dllama.host.temporary import (
    MAX_SOCKET_PATH,
    places,
    socket_folder,
    temporary_file,
    temporary_folder,
)

resource = pytest.importorskip("resource", reason="limits as POSIX has them")


@pytest.fixture(params=["long", "absent", "a file", "relative", ""])
def tmpdir(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A TMPDIR as people set it, of which some cannot be used."""
    chosen = {
        "long": tmp_path / ("x" * 120), "absent": tmp_path / "absent", "a file": tmp_path / "file",
        "relative": Path(), "": "",
    }[request.param]  # fmt: skip
    (tmp_path / ("x" * 120)).mkdir()
    (tmp_path / "file").touch()
    monkeypatch.setenv("TMPDIR", str(chosen))
    monkeypatch.chdir(tmp_path)
    return str(chosen)


def test_a_socket_opens_whatever_tmpdir_is(tmpdir: str) -> None:
    with socket_folder("dllama-", "engine") as folder, socket.socket(socket.AF_UNIX) as bound:
        path = f"{folder}/engine"
        assert len(os.fsencode(path)) <= MAX_SOCKET_PATH
        bound.bind(path)
    assert not Path(folder).exists()


def test_folders_and_files_whatever_tmpdir_is(tmpdir: str) -> None:
    with temporary_folder("dllama-") as folder:
        assert Path(folder).is_absolute()
        (Path(folder) / "a").write_bytes(b"x")
    path = temporary_file("dllama-", b"content")
    assert path.read_bytes() == b"content"
    path.unlink()


def test_the_folder_that_was_chosen_comes_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    assert places()[0] == str(tmp_path)
    with temporary_folder("dllama-") as folder:
        assert Path(folder).parent == tmp_path
        shutil.rmtree(folder)  # as others do who tidy up: no error at the end


def test_no_place_at_all_is_said_with_every_cause(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    tried = [str(tmp_path / "absent"), str(tmp_path / "file")]
    monkeypatch.setattr(temporary, "places", lambda: tried)
    for make in (lambda: temporary_folder("a"), lambda: temporary_file("a", b"")):
        with pytest.raises(ConfigError, match=r"absent \(No such file.*file \(Not a dir.*TMPDIR"):
            make()
    monkeypatch.setattr(temporary, "places", lambda: ["/" + "x" * 120])
    with pytest.raises(ConfigError, match=r"all paths are too long.*short path in TMPDIR"):
        socket_folder("a", "b")


def test_a_file_that_has_no_room_leaves_none_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(temporary, "places", lambda: [str(tmp_path)])
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
    try:
        with pytest.raises(ConfigError, match="File too large"):
            temporary_file("a", bytes(1000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not list(tmp_path.iterdir())
