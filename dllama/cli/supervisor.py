"""Starts an engine process, notices when it ends, and starts it anew."""

from __future__ import annotations

import asyncio
import logging
import signal
import subprocess
import time

from api.engines.zmq_client import ZmqEngineClient
from dllama.child_python import child_command, child_environment
from dllama.cli.flags.settings import EngineSettings

log = logging.getLogger(__name__)

STOP_S = 5.0  # time an engine has to end by itself
QUICK_S = 30.0  # one that ends sooner than this after its start did not work
MAX_QUICK = 3  # in a row: then it is left down
CHECK_S = 0.2
RETRY_S = 3.0


class EngineSupervisor:
    """Keeps one engine process running for a client that owns its endpoint."""

    def __init__(
        self, settings: EngineSettings, endpoint: str, client: ZmqEngineClient, log_level: str
    ) -> None:
        self._settings, self._endpoint, self._client = settings, endpoint, client
        self._log_level = log_level
        self._process: subprocess.Popen[bytes] | None = None
        self._was_ready = False  # a first load that fails is for the user to mend

    def _spawn(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [
                *child_command("dllama.cli.engine"), "--endpoint", self._endpoint,
                "--settings", self._settings.to_json(), "--log-level", self._log_level,
            ],
            env=child_environment(),
            stdin=subprocess.PIPE,  # the engine ends when this pipe does
        )  # fmt: skip

    async def run(self) -> None:
        """Starts the engine, and again whenever it crashes; ends with the task."""
        n_quick = 0
        try:
            while True:
                started_s = time.monotonic()
                try:
                    self._process = self._spawn()
                except OSError as error:  # no memory, no file descriptors
                    cause = f"The engine cannot be started: {error}."
                    self._client.engine_died(cause, is_restarting=self._was_ready)
                    if not self._was_ready:
                        return
                    await asyncio.sleep(RETRY_S)
                    continue
                code = await self._ended(self._process)
                state = self._client.state
                has_failed = state.state == "failed"
                cause = state.detail if has_failed else f"The engine ended ({_cause(code)})."
                is_quick = not has_failed and time.monotonic() - started_s < QUICK_S
                n_quick = n_quick + 1 if is_quick else 0
                if (has_failed and not self._was_ready) or n_quick >= MAX_QUICK:
                    self._client.engine_died(cause)
                    return
                log.error("%s It is started again.", cause)
                self._client.engine_died(
                    f"{cause} It is being started again; send the request again in a few seconds.",
                    is_restarting=True,
                )
                if has_failed:  # a worker that is away, say: it may be back in a while
                    await asyncio.sleep(RETRY_S)
        finally:
            self.stop()

    async def _ended(self, process: subprocess.Popen[bytes]) -> int:
        while (code := process.poll()) is None:
            self._was_ready |= self._client.state.state == "ready"
            await asyncio.sleep(CHECK_S)
        return code

    def stop(self) -> None:
        """Ends the engine: by closing its stdin, and by killing it after STOP_S."""
        process, self._process = self._process, None
        if process is None:
            return
        if process.stdin is not None:
            process.stdin.close()
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            log.warning("the engine did not end by itself and is killed")
            process.kill()
            process.wait()


def _cause(code: int) -> str:
    """Returns an exit code in words."""
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"killed by signal {-code}"
