"""Lets a model sleep while nobody asks it anything: its weights are freed after a time without
work, and loaded again for the next request. Knows when, not how."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Protocol

from dllama.errors import EngineBusy
from dllama.requests import EngineState

log = logging.getLogger(__name__)

CHECK_S = 0.25  # interval of checks while there is work
STOP_RETRY_S = 5.0


class WatchedEngine(Protocol):
    """The part of an EngineClient that is watched."""

    @property
    def state(self) -> EngineState: ...

    @property
    def n_open(self) -> int: ...


class Sleeper(Protocol):
    """Frees the weights of an engine, whose state is then "sleeping", and loads them again."""

    async def sleep(self) -> None: ...

    async def wake(self) -> None:
        """Returns once the engine is ready. Raises EngineBusy where it cannot be loaded: it sleeps
        on, and may be woken again."""
        ...


class IdleSleep:
    """Puts one engine to sleep after `after_s` seconds without work."""

    def __init__(
        self,
        engine: WatchedEngine,
        sleeper: Sleeper,
        after_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._engine, self._sleeper, self._after_s = engine, sleeper, after_s
        self._clock = clock
        self._n_requests = 0
        self._idle_since_s = clock()
        self._waking: asyncio.Task[None] | None = None

    @property
    def is_waking(self) -> bool:
        """Whether requests wait for the engine to be loaded again."""
        return self._waking is not None

    @asynccontextmanager
    async def request(self) -> AsyncIterator[None]:
        """Counts as work, and wakes the engine first. Raises EngineBusy where it does not wake."""
        self._n_requests += 1
        try:
            if self._engine.state.state == "sleeping" or self.is_waking:
                await self._wake()
            yield
        finally:
            self._n_requests -= 1
            self._idle_since_s = self._clock()

    async def watch(self) -> None:
        """Puts the engine to sleep whenever it is due; ends with the task."""
        while True:
            is_idle = self._is_idle()
            if not is_idle:
                self._idle_since_s = self._clock()
            left_s = self._idle_since_s + self._after_s - self._clock()
            if left_s > 0.0:
                await asyncio.sleep(left_s if is_idle else min(left_s, CHECK_S))
                continue
            log.info("nothing has been asked for %g s: the model sleeps", self._after_s)
            await self._sleeper.sleep()

    def _is_idle(self) -> bool:
        engine = self._engine
        return engine.state.state == "ready" and not self._n_requests and not engine.n_open

    async def _wake(self) -> None:
        """Waits for the engine; those who come meanwhile wait for the same attempt."""
        if self._waking is None:
            self._waking = asyncio.create_task(self._sleeper.wake(), name="wake the engine")
            self._waking.add_done_callback(self._note_attempt)
        attempt = self._waking
        try:
            await asyncio.shield(attempt)
        except asyncio.CancelledError:
            if not attempt.cancelled():
                raise  # this request's client has left
            raise EngineBusy(
                "The server stops before the model is awake; send the request again in a moment.",
                retry_after_s=STOP_RETRY_S,
            ) from None

    def stop(self) -> None:
        """Gives up waking: the server stops. Those who wait get EngineBusy."""
        if self._waking is not None:
            self._waking.cancel()

    def _note_attempt(self, attempt: asyncio.Task[None]) -> None:
        self._waking = None
        if not attempt.cancelled() and attempt.exception() is not None:
            log.warning("the model could not be woken: %s", attempt.exception())
