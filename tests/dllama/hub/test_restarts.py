"""Kills and restarts in the middle, two processes at once: right bytes in the end, once."""

from __future__ import annotations

import asyncio
import hashlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from dllama.hub.store import Store
from tests.dllama.hub.pulling import files_in, pulling, settings_of, whole_models
from tests.hub_server import HubServer, Trouble, hub_server

PARTS = {
    f"toy-Q4_0-{i:05d}-of-00008.gguf": (hashlib.sha256(bytes([i])).digest() * 20_000)[:-i]
    for i in range(1, 9)
}
NAME = "hf.co/user/toy:Q4_0"
PATIENCE_S = 60.0


@pytest.fixture
def hub() -> Iterator[HubServer]:
    with hub_server() as server:
        server.repos["user/toy"] = dict(PARTS)
        yield server


def pull_command(hub: HubServer, folder: Path) -> subprocess.Popen[str]:
    """A process that pulls the model as a user does."""
    own = {"HF_ENDPOINT": hub.url, "DLLAMA_MODELS": str(folder), "HF_HUB_CACHE": str(folder / "no")}
    return subprocess.Popen(
        [sys.executable, "-m", "dllama", "pull", "user/toy"], env=os.environ | own,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


def until_some_came(hub: HubServer, folder: Path, n_bytes: int) -> None:
    until_s = time.monotonic() + PATIENCE_S
    while sum(map(len, files_in(folder).values())) < n_bytes:
        assert time.monotonic() < until_s
        time.sleep(0.01)


def test_eight_files_with_kills_and_trouble_come_right(hub: HubServer, tmp_path: Path) -> None:
    """Killed in the middle, then interrupted; then two at once finish it, one for both."""
    first, second, third, *_ = PARTS
    hub.troubles[first] += [Trouble(cut_after=100_000), Trouble(status=503)]
    hub.troubles[second] += [Trouble(cut_after=1), Trouble(is_whole=True)]
    hub.pace_s = 0.1  # nothing ends before it is told to, on a busy machine either
    total = sum(map(len, PARTS.values()))
    for share, number in ((4, signal.SIGKILL), (2, signal.SIGINT)):
        process = pull_command(hub, tmp_path)
        until_some_came(hub, tmp_path, total // share)
        process.send_signal(number)
        said, _ = process.communicate(timeout=PATIENCE_S)
        assert process.returncode == (130 if number == signal.SIGINT else -number)
        assert number != signal.SIGINT or "goes on with it" in said
        [(receipt, n_bytes)] = Store(tmp_path).unfinished()
        assert receipt.name == NAME and n_bytes >= total // share
        assert whole_models(tmp_path) == {}
    hub.troubles[third].append(Trouble(status=500))
    hub.pace_s, hub.seen = 0.0, []
    both = [pull_command(hub, tmp_path) for _ in range(2)]
    for process in both:
        said, _ = process.communicate(timeout=PATIENCE_S)
        assert process.returncode == 0 and f"{NAME} is here" in said, said
    assert whole_models(tmp_path) == {f"{NAME} {path}": data for path, data in PARTS.items()}
    assert len(files_in(tmp_path)) == 8, "something is left over"
    begun_anew = [s for s in hub.seen if s.path.startswith("/cdn") and not s.range]
    assert not begun_anew, "what was here is fetched again"


def test_a_new_version_takes_the_place_of_the_old_one(hub: HubServer, tmp_path: Path) -> None:
    hub.repos["user/toy"] = {"toy-Q4_0.gguf": b"old" * 5000}

    async def run() -> None:
        async with pulling(settings_of(hub, tmp_path)) as pull:
            await pull.pull(NAME)
            [old] = Store(tmp_path).models()
            with old.path.open("rb") as in_use:
                hub.repos["user/toy"] = {"toy-Q4_0.gguf": b"new" * 5000}
                await pull.pull(NAME)
                [new] = Store(tmp_path).models()
                assert new.id != old.id and new.name == old.name
                assert in_use.read() == b"old" * 5000, "a program that has it open keeps it"

    asyncio.run(run())
    assert list(files_in(tmp_path).values()) == [b"new" * 5000]
