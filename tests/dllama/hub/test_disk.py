"""A disk that is full, or will be."""

from __future__ import annotations

import asyncio
import hashlib
import resource
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from dllama.hub.task import EventType
from tests.dllama.hub.pulling import files_in, pulling, settings_of, whole_models
from tests.hub_server import hub_server

DATA = hashlib.sha256(b"toy").digest() * 4000
SMALL = hashlib.sha256(b"small").digest() * 200


@contextmanager
def largest_file(n_bytes: int) -> Iterator[None]:
    """Has the system refuse to make any file larger, as a full disk does."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def test_a_disk_that_fills_up_is_told_and_given_back(tmp_path: Path) -> None:
    async def run() -> None:
        async with pulling(settings_of(hub, tmp_path)) as pull:
            fits = await pull.downloads.pull("user/small")
            with largest_file(50_000):
                events = await pull.pull("user/toy")
                assert (await pull.over(fits))[-1].type is EventType.SUCCESS
            assert events[-1].type is EventType.ERROR
            assert "is full" in events[-1].task["error"] and "make room" in events[-1].task["error"]
            assert list(files_in(tmp_path).values()) == [SMALL], "what came of it is left over"
            assert (await pull.pull("user/toy"))[-1].type is EventType.SUCCESS

    with hub_server() as hub:
        hub.repos.update({"user/toy": {"a-Q4_0.gguf": DATA}, "user/small": {"b-Q4_0.gguf": SMALL}})
        hub.pace_s = 0.01
        asyncio.run(run())
    assert sorted(whole_models(tmp_path).values()) == sorted([DATA, SMALL])


def test_room_that_other_downloads_will_take_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With room for one and a half, the second of two that run at once is refused."""
    usage = shutil.disk_usage(tmp_path)
    room = usage._replace(free=len(DATA) * 3 // 2)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: room)

    async def run() -> None:
        async with pulling(settings_of(hub, tmp_path)) as pull:
            first = await pull.downloads.pull("user/toy")
            while not any(seen.path.startswith("/cdn") for seen in hub.seen):
                await asyncio.sleep(0.005)
            second = await pull.pull("user/other")
            assert second[-1].type is EventType.ERROR
            assert "for other downloads" in second[-1].task["error"]
            assert (await pull.over(first))[-1].type is EventType.SUCCESS

    with hub_server() as hub:
        hub.repos.update({"user/toy": {"a-Q4_0.gguf": DATA}, "user/other": {"a-Q4_0.gguf": DATA}})
        hub.pace_s = 0.05
        asyncio.run(run())
