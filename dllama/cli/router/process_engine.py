"""One engine of a router: its process, and the client that speaks to it."""

from __future__ import annotations

import asyncio
import subprocess

from api.engines.zmq_client import ZmqEngineClient
from dllama.cli.flags.settings import EngineSettings
from dllama.cli.server.engine_process import end_gently
from dllama.cli.server.supervisor import STOP_S, EngineSupervisor
from dllama.logs.settings import LogSettings

LOADING_STOP_S = 0.2  # one that loads hears nothing


class ProcessEngine:
    """Satisfies api.models.entry.ModelEngine. `started` is a process that waits for its
    instructions."""

    def __init__(
        self,
        settings: EngineSettings,
        endpoint: str,
        logs: LogSettings,
        started: subprocess.Popen[bytes] | None = None,
    ) -> None:
        self.client = ZmqEngineClient(endpoint, max_recover_s=settings.max_recover_s)
        self._supervisor = EngineSupervisor(settings, endpoint, self.client, logs, started)
        self._running: asyncio.Task[None] | None = None

    async def start(self) -> None:
        await self.client.start()
        self._supervisor.begin()
        self._running = asyncio.create_task(self._supervisor.run(), name="supervise an engine")

    async def end(self) -> None:
        if self._running is not None:
            is_ready = self.client.state.state == "ready"
            process = self._supervisor.release()
            self._running.cancel()
            await asyncio.gather(self._running, return_exceptions=True)
            if process is not None:
                wait_s = STOP_S if is_ready else LOADING_STOP_S
                await asyncio.to_thread(end_gently, process, wait_s)
        await self.client.close()
