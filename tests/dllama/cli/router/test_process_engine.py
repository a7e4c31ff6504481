"""The processes of a router's engines: none stays behind, whenever they are ended."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from dllama.cli.flags.settings import EngineSettings
from dllama.cli.router import spare_process as module
from dllama.cli.router.process_engine import ProcessEngine
from dllama.cli.router.spare_process import SpareProcess
from dllama.logs.settings import LogSettings
from tests.api.serving import run, until
from tests.leaks import no_leaks  # noqa: F401
from tests.toy_models import write_toy

pytestmark = [pytest.mark.usefixtures("no_leaks"), pytest.mark.timeout(240)]


def test_engines_end_before_their_start_while_they_load_and_when_they_are_ready(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PREPARE_AFTER_S", 0.0)
    settings = EngineSettings(str(write_toy(tmp_path / "toy.gguf")), 1)

    async def body() -> None:
        spare = SpareProcess(None)
        assert spare.take() is None
        await asyncio.sleep(0.05)
        never, brief, whole = (
            ProcessEngine(settings, f"ipc://{tmp_path}/{i}", LogSettings(), started)
            for i, started in enumerate((None, spare.take(), None))
        )
        await never.end()
        for engine in (brief, whole):
            await engine.start()
        await brief.end()
        await until(lambda: whole.client.state.state == "ready")
        await whole.end()
        await asyncio.sleep(0.05)  # another one is ready, which nobody takes
        spare.close()

    run(body, limit_s=200)
