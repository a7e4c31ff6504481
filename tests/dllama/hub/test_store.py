"""The folder of models: what is whole, what is not, and what somebody has damaged."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from dllama.hub.local_model import Origin
from dllama.hub.receipts import RECEIPT, read_receipt, receipt_of, write_receipt
from dllama.hub.repository import RemoteFile, Selection
from dllama.hub.staging_lock import StagingLock
from dllama.hub.store import Store

NAME = "hf.co/u/r:Q4_0"


def selection(*paths: str, main: str = "a.gguf") -> Selection:
    files = tuple(RemoteFile(path, 4, f"https://h/{path}") for path in paths)
    return Selection(NAME, ("hf.co", "u", "r", "Q4_0"), files, main, "c0ffee", "u/r")


def stored(store: Store, chosen: Selection) -> Path:
    """Has a model appear; returns its folder."""
    staging = store.staging_of(chosen.id)
    for file in chosen.files:
        path = staging / file.path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"data")
    store.publish(chosen, receipt_of(chosen))
    return store.home_of(chosen)


def test_a_model_appears_and_goes_as_a_whole(tmp_path: Path) -> None:
    store, chosen = Store(tmp_path), selection("a.gguf", "sub/b.gguf")
    assert store.models() == [] and not store.holds(chosen)
    home = stored(store, chosen)
    [model] = store.models()
    assert (model.name, model.path, model.n_bytes) == (NAME, home / "a.gguf", 8)
    assert model.origin is Origin.PULLED and model.revision == "c0ffee" and store.holds(chosen)
    stored(store, chosen)  # again, in the place of itself
    assert store.models()[0].id == model.id
    store.remove(model)
    assert store.models() == [] and list(tmp_path.iterdir()) == []


def test_a_folder_of_files_is_the_model_where_no_file_is(tmp_path: Path) -> None:
    home = stored(Store(tmp_path), selection("config.json", "model.safetensors", main=""))
    assert Store(tmp_path).models()[0].path == home


@pytest.mark.parametrize("damage", ["missing", "short", "no receipt", "no json", "large", "path"])
def test_a_damaged_model_is_none(tmp_path: Path, damage: str) -> None:
    store, chosen = Store(tmp_path), selection("a.gguf", "b.gguf")
    home = stored(store, chosen)
    receipt = home / RECEIPT
    if damage == "missing":
        (home / "b.gguf").unlink()
    elif damage == "short":
        (home / "b.gguf").write_bytes(b"dat")
    elif damage == "no receipt":
        receipt.unlink()
    elif damage == "no json":
        receipt.write_bytes(b"\xff{")
    elif damage == "large":
        receipt.write_bytes(b" " * (5 << 20))
    else:
        told = json.loads(receipt.read_text())
        told["main"] = "../../../../../etc/passwd"
        receipt.write_text(json.dumps(told))
    assert store.models() == [] and not store.holds(chosen)
    stored(store, chosen)  # a pull mends it
    assert store.holds(chosen)


def test_what_is_not_whole_is_told_apart(tmp_path: Path) -> None:
    store, chosen = Store(tmp_path), selection("a.gguf")
    staging = store.staging_of(chosen.id)
    staging.mkdir(parents=True)
    write_receipt(staging, receipt_of(chosen))
    (staging / "a.gguf.part").write_bytes(b"da")
    assert store.models() == []
    [(receipt, n_bytes)] = store.unfinished()
    assert (receipt.name, receipt.n_bytes, n_bytes) == (NAME, 4, 2)
    assert read_receipt(staging) == receipt
    store.discard(chosen.id)
    assert list(tmp_path.iterdir()) == []


def test_links_are_not_followed(tmp_path: Path) -> None:
    elsewhere = Store(tmp_path / "elsewhere")
    home = stored(elsewhere, selection("a.gguf"))
    store = Store(tmp_path / "models")
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "link").symlink_to(home)
    assert store.models() == []
    shutil.copytree(home, tmp_path / "models" / "hf.co" / "copy")
    assert len(store.models()) == 1, "a model may be moved within the folder"


def test_a_lock_is_one_processs_and_leaves_nothing(tmp_path: Path) -> None:
    staging = Store(tmp_path).staging_of("x")
    one, other = StagingLock(staging), StagingLock(staging)
    assert one.try_acquire() and not other.try_acquire()
    one.release()
    one.release()
    assert other.try_acquire() and not one.try_acquire()
    other.release()
    assert list(tmp_path.iterdir()) == []
