"""The cache of huggingface_hub is read as its layout says, and never written to."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from dllama.hub.found import find_here, models_here
from dllama.hub.hub_cache import cached_models
from dllama.hub.local_model import Origin
from dllama.hub.names import parse_name
from dllama.hub.task import EventType
from tests.dllama.hub.pulling import pulling, settings_of
from tests.hub_server import COMMIT, HubServer, hub_server

DATA = hashlib.sha256(b"toy").digest() * 2000
FILE = "toy-Q4_0.gguf"


def write_cached(cache: Path, repo: str, files: dict[str, bytes], commit: str = COMMIT) -> Path:
    """Writes a repository as huggingface_hub does; returns its snapshot."""
    folder = cache / f"models--{repo.replace('/', '--')}"
    snapshot = folder / "snapshots" / commit
    for path, data in files.items():
        blob = folder / "blobs" / hashlib.sha256(data).hexdigest()
        blob.parent.mkdir(parents=True, exist_ok=True)
        blob.write_bytes(data)
        link = snapshot / path
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(blob)
    (folder / "refs").mkdir(exist_ok=True)
    (folder / "refs" / "main").write_text(commit)
    return snapshot


@pytest.fixture
def hub() -> Iterator[HubServer]:
    with hub_server() as server:
        server.repos["user/toy"] = {FILE: DATA}
        yield server


def test_models_of_the_newest_snapshot_are_found(tmp_path: Path) -> None:
    old = {"a-Q8_0.gguf": b"old", "config.json": b"{}", "model.safetensors": b"w"}
    write_cached(tmp_path, "u/r", old, "0ldc0mmit")
    new = {"a-Q4_0-00001-of-00002.gguf": b"12", "a-Q4_0-00002-of-00002.gguf": b"3",
           "b-Q5_0-00001-of-00002.gguf": b"half", "mmproj-a.gguf": b"no"}  # fmt: skip
    snapshot = write_cached(tmp_path, "u/r", new)
    folder = write_cached(tmp_path, "u/c", {"config.json": b"{}", "model.safetensors": b"w"})
    found = {model.name: model for model in cached_models(tmp_path)}
    assert set(found) == {"hf.co/u/r:Q4_0", "hf.co/u/c:safetensors"}
    assert found["hf.co/u/r:Q4_0"].path == snapshot / "a-Q4_0-00001-of-00002.gguf"
    assert found["hf.co/u/r:Q4_0"].n_bytes == 3
    assert found["hf.co/u/c:safetensors"].path == folder
    assert cached_models(None) == cached_models(tmp_path / "none") == []


def test_links_out_of_the_cache_and_strange_folders_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "secret.gguf").write_bytes(b"secret")
    cache = tmp_path / "cache"
    snapshot = write_cached(cache, "u/r", {"a-Q4_0.gguf": b"x"})
    (snapshot / "b-Q8_0.gguf").symlink_to(tmp_path / "secret.gguf")
    (snapshot / "c-Q6_K.gguf").symlink_to(tmp_path / "nothing")
    for strange in ("models--alone", "models--u--", "datasets--u--r"):
        (cache / strange / "refs").mkdir(parents=True)
    (cache / "models--u--evil" / "refs").mkdir(parents=True)
    (cache / "models--u--evil" / "refs" / "main").write_text("../../../..")
    assert [model.name for model in cached_models(cache)] == ["hf.co/u/r:Q4_0"]


def test_a_pull_takes_what_the_cache_has_and_checks_it(hub: HubServer, tmp_path: Path) -> None:
    cache, models = tmp_path / "cache", tmp_path / "models"
    snapshot = write_cached(cache, "user/toy", {FILE: DATA})
    blob = (snapshot / FILE).resolve()
    settings = settings_of(hub, models, cache=cache)
    found = find_here(settings, parse_name("user/toy"))
    assert found is not None and found.origin is Origin.HUB_CACHE

    async def pull() -> None:
        async with pulling(settings) as one:
            assert (await one.pull("user/toy"))[-1].type is EventType.SUCCESS

    asyncio.run(pull())
    assert not hub.requests_of(FILE), "nothing is downloaded"
    [model] = models_here(settings)
    assert model.origin is Origin.PULLED and model.path.read_bytes() == DATA
    assert model.path.stat().st_ino == blob.stat().st_ino, "nothing is there twice"
    # What is damaged in the cache is downloaded, and stays as it was there.
    for path in (model.path, *model.path.parent.iterdir()):
        path.unlink(missing_ok=True)
    damaged = bytes(len(DATA))
    blob.write_bytes(damaged)
    asyncio.run(pull())
    assert len(hub.requests_of(FILE)) == 2
    assert models_here(settings)[0].path.read_bytes() == DATA and blob.read_bytes() == damaged
