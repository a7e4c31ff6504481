"""Starts an engine process, notices when it ends or stands still, and starts it anew; ends it for
as long as it sleeps."""

from __future__ import annotations

import asyncio
import logging
import signal
import subprocess
import time
from dataclasses import replace

from api.engines.zmq_client import ZmqEngineClient
from dllama.cli.flags.settings import EngineSettings
from dllama.cli.server.engine_process import end_gently, instruct, let_go, start_engine
from dllama.cli.server.pulse import STILL_S, PulseWatch, has_beaten
from dllama.cli.terminal.guarded import FAILED
from dllama.errors import EngineBusy
from dllama.logs.settings import LogSettings

log = logging.getLogger(__name__)

STOP_S = 5.0  # time an engine has to end by itself
QUICK_S = 30.0  # one that ends sooner than this after its start, without a step, did not work
MAX_QUICK = 3  # in a row, none of them ready: then it is left down
CHECK_S = 0.2
LAST_WORDS_S = 1.0  # for what an engine said before it ended
WAKE_CHECK_S = 0.01  # while requests wait
RETRY_S = 3.0


class EngineSupervisor:
    """Keeps one engine process running for a client that owns its endpoint. `started` is a process
    that waits for its instructions, which `begin` gives. One whose pulse stands still for `still_s`
    is killed."""

    def __init__(
        self,
        settings: EngineSettings,
        endpoint: str,
        client: ZmqEngineClient,
        logs: LogSettings,
        started: subprocess.Popen[bytes] | None = None,
        *,
        still_s: float = STILL_S,
    ) -> None:
        self._settings, self._endpoint, self._client = settings, endpoint, client
        self._logs = logs
        self._process: subprocess.Popen[bytes] | None = None
        self._started = started
        self._still_s = still_s
        self._was_ready = False  # a first load that fails is for the user to mend
        self._is_ready = False  # this process, at its end too
        self._is_wanted = asyncio.Event()  # else it sleeps
        self._is_wanted.set()
        self._is_resting = asyncio.Event()  # there is no process
        self._changing = asyncio.Lock()  # an engine that goes to sleep is woken afterwards
        self._is_waking = False
        self._wake_failure: str | None = None

    def begin(self) -> None:
        """Instructs the process that was started already: it loads before `run`, which begins when
        the server listens."""
        if self._started is not None:
            self._instruct(self._started)

    def _spawn(self) -> subprocess.Popen[bytes]:
        begun, self._started = self._started, None
        if begun is not None:
            return begun
        process = start_engine()
        self._instruct(process)
        return process

    def _instruct(self, process: subprocess.Popen[bytes]) -> None:
        settings = replace(self._settings, is_restart=self._was_ready)
        named = self._client.named_nodes
        if len(named) == 1:  # the root; without workers its engine would take none any more
            settings = replace(settings, forgets_workers=True)
        elif named:
            settings = replace(
                settings,
                workers=tuple(row.address for row in named[1:]),
                shares=tuple(row.share for row in named) if self._settings.shares else (),
            )
        instruct(process, self._endpoint, settings.to_json(), self._logs)

    async def run(self) -> None:
        """Starts the engine, and again whenever it crashes or is woken; ends with the task."""
        n_quick = 0
        try:
            while True:
                started_s, n_steps = time.monotonic(), self._client.n_steps
                cause, has_failed = await self._one_life()
                if self._is_waking:
                    self._wake_failure = cause
                    self._is_wanted.clear()
                if not self._is_wanted.is_set():
                    n_quick = 0
                    await self._rest()
                    continue
                has_worked = self._client.n_steps > n_steps
                is_soon = time.monotonic() - started_s < QUICK_S
                is_quick = is_soon and not has_failed and not has_worked
                # One that was ready died of a request, which is refused before long, or was killed.
                n_quick = n_quick + 1 if is_quick and not self._is_ready else 0
                if (has_failed and not self._was_ready) or n_quick >= MAX_QUICK:
                    self._client.engine_died(cause)
                    return
                log.error("%s It is started again.", cause)
                self._client.engine_died(f"{cause} It is being started again.", is_restarting=True)
                if has_failed:  # a worker that is away, say: it may be back in a while
                    await asyncio.sleep(RETRY_S)
        finally:
            self.stop()

    async def _one_life(self) -> tuple[str, bool]:
        """Starts an engine and waits for its end; returns why it ended, and whether that was a
        failure which is told, not a crash."""
        try:
            process = self._process = self._spawn()
        except OSError as error:
            return f"The engine's process cannot be started: {error.strerror}.", True
        cause = await self._ended(process)
        let_go(process)
        heard_by = time.monotonic() + LAST_WORDS_S * (process.returncode == FAILED)
        while self._client.state.state != "failed" and time.monotonic() < heard_by:
            await asyncio.sleep(WAKE_CHECK_S)  # its reason may still be on its way
        state = self._client.state
        if state.state == "failed":
            return state.detail, True
        return cause, False

    # ---- sleep (api.sleep.Sleeper)
    async def sleep(self) -> None:
        """Ends the engine, whose memory is then free for sure; its sessions on workers end too."""
        async with self._changing:
            self._is_wanted.clear()  # it is not started again either, should it crash now
            self._client.engine_sleeps()
            await self._client.keep_figures()
            await self._end()

    async def wake(self) -> None:
        """Starts the engine again and returns once it is ready. Raises EngineBusy where it fails:
        it can be woken again."""
        async with self._changing:
            self._client.engine_wakes()
            self._is_waking, self._wake_failure = True, None
            self._is_wanted.set()
            try:
                while self._client.state.state != "ready" and self._wake_failure is None:
                    await asyncio.sleep(WAKE_CHECK_S)
            finally:
                self._is_waking = False
            if self._wake_failure is not None:
                self._client.engine_sleeps()
                raise EngineBusy(
                    "The model slept and cannot be loaded again: "
                    f"{self._wake_failure} The next request tries it once more.",
                    retry_after_s=RETRY_S,
                )

    async def _rest(self) -> None:
        """Waits until the engine is wanted again."""
        self._process = None
        self._is_resting.set()
        await self._is_wanted.wait()
        self._is_resting.clear()

    async def _end(self) -> None:
        """Ends the engine as `stop` does, but lets the server work on meanwhile."""
        process = self._process
        if process is not None and process.stdin is not None:
            process.stdin.close()
        try:
            async with asyncio.timeout(STOP_S):
                await self._is_resting.wait()
        except TimeoutError:
            log.warning("the engine did not end by itself and is killed")
            if process is not None:
                process.kill()
            await self._is_resting.wait()

    async def _ended(self, process: subprocess.Popen[bytes]) -> str:
        """Waits until a process has ended, and returns why; kills it where it stands still."""
        assert process.stdout is not None, "start_engine opens a pipe"
        watch, was_still = PulseWatch(self._still_s), False
        self._is_ready = False
        while True:
            code = process.poll()
            self._is_ready |= self._client.state.state == "ready"
            self._was_ready |= self._is_ready
            if code is not None:
                still = f"its process stood still for {self._still_s:g} s and was "
                return f"The engine ended ({still * was_still}{_cause(code)})."
            if not was_still and watch.is_still(has_beaten(process.stdout), time.monotonic()):
                was_still = True
                process.kill()
            await asyncio.sleep(CHECK_S)

    def stop(self) -> None:
        """Ends the engine: by closing its pipes, and by killing it after STOP_S."""
        process = self.release()
        if process is not None:
            end_gently(process, STOP_S)

    def release(self) -> subprocess.Popen[bytes] | None:
        """Returns the process, if there is one, which is the caller's to end from now on: `run` is
        about to be cancelled."""
        process = self._process or self._started  # one that `run` has not come to yet
        self._process = self._started = None
        return process


def _cause(code: int) -> str:
    """Returns an exit code in words."""
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"killed by signal {-code}"
