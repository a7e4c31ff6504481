"""The life of one engine of a router: from its start until it ends or is told to leave."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

from api.models.entry import ModelEngine, ModelEntry
from api.models.texts import ModelTexts
from api.served_model import ServedModel
from dllama.errors import DllamaError

log = logging.getLogger(__name__)

LOAD_CHECK_S = 0.02
CHECK_S = 0.2


class LoadFailure(NamedTuple):
    """Why an engine is gone. `is_short`: its nodes had less memory than was thought."""

    reason: str
    is_short: bool = False


class ModelLife:
    """One engine of one model. `model` is known once it is loaded."""

    def __init__(self, entry: ModelEntry, engine: ModelEngine, texts: ModelTexts) -> None:
        self.entry, self.engine, self._texts = entry, engine, texts
        self.model: ServedModel | None = None
        self.ended = asyncio.Event()  # set by who has ended it, once that is known
        self._leaves = asyncio.Event()

    def leave(self) -> None:
        """Has `run` return, also while it loads."""
        self._leaves.set()

    async def run(
        self, on_loaded: Callable[[], None], on_progress: Callable[[], None]
    ) -> LoadFailure | None:
        """Loads the model, and returns when it is to leave (None), or why its engine is gone.
        Its text is read while the engine loads."""
        reading: asyncio.Task[ServedModel] | None = None
        try:
            await self.engine.start()
            reading = asyncio.create_task(self._texts.read(self.entry))
            failure = await self._until_ready(on_progress)
            if failure is not None or self._leaves.is_set():
                return failure
            self.model = replace(await reading, engine=self.engine.client)
            on_loaded()
            return await self._until_gone()
        except DllamaError as error:
            return LoadFailure(str(error))
        except Exception as error:
            log.exception("the model %s failed", self.entry.name)
            return LoadFailure(f"{type(error).__name__}: {error}")
        finally:
            if reading is not None:
                reading.cancel()
                await asyncio.gather(reading, return_exceptions=True)

    async def end(self) -> None:
        """Ends the engine."""
        await self.engine.end()

    async def _until_ready(self, on_progress: Callable[[], None]) -> LoadFailure | None:
        client = self.engine.client
        while client.state.state != "ready" and not self._leaves.is_set():
            if client.state.state == "failed":
                return self._failure()
            on_progress()
            await self._pause(LOAD_CHECK_S)
        return None

    async def _until_gone(self) -> LoadFailure | None:
        while not self._leaves.is_set():
            if self.engine.client.state.state == "failed":
                return self._failure()
            await self._pause(CHECK_S)
        return None

    def _failure(self) -> LoadFailure:
        state = self.engine.client.state
        return LoadFailure(state.detail or "its engine has failed.", state.is_short)

    async def _pause(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._leaves.wait()
        except TimeoutError:
            pass
