"""Models of a router whose engines follow scripts: each says its own name."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import replace

from api.engines.in_process import InProcessEngineClient
from api.models.entry import ModelEntry
from api.models.pool import ModelPool
from api.models.residents import Limits
from api.served_model import ServedModel
from dllama.errors import ConfigError, ModelFileError
from dllama.requests import EngineState
from tests.api.serving import masks, says, served
from tests.scripted_runner import ScriptedEngine

GB = 10**9


class FailingClient(InProcessEngineClient):
    def note_failure(self, state: EngineState) -> None:
        """Hears the last words of an engine."""
        self._receive(state)


class ScriptedModelEngine:
    """Satisfies api.models.entry.ModelEngine."""

    def __init__(self, entry: ModelEntry, source: ScriptedSource) -> None:
        self.entry, self.source = entry, source
        self.engine = ScriptedEngine(
            says(f"I am {entry.name}"), gate=source.gates.get(entry.name), constraints=masks()
        )
        self.client = FailingClient(self.engine)
        self._starting: asyncio.Task[None] | None = None

    async def start(self) -> None:
        self._starting = asyncio.create_task(self._load())

    async def _load(self) -> None:
        await self.source.may_load.wait()
        reason = self.source.failures.get(self.entry.name)
        if self.source.n_short.get(self.entry.name, 0):
            self.source.n_short[self.entry.name] -= 1
            self.client.note_failure(EngineState("failed", detail="too little", is_short=True))
            self.client.engine_died("too little")
        elif reason is not None:
            self.client.engine_died(reason)
        else:
            await self.client.start()

    async def end(self) -> None:
        if self._starting is not None:
            self._starting.cancel()
            await asyncio.gather(self._starting, return_exceptions=True)
        await self.client.close()
        await self.source.may_end.wait()
        self.source.running.remove(self)


class ScriptedSource:
    """Satisfies api.models.entry.ModelSource. `needs` are bytes, of all models 1 GB at first;
    engines of `failures` fail with their reason, those of `n_short` so often for want of memory,
    none loads before it `may_load`, nor ends before it `may_end`."""

    def __init__(self, *names: str, **more: object) -> None:
        self.listed = [replace(ModelEntry(name), **more) for name in names]  # type: ignore[arg-type]
        self.needs: dict[str, int] = {}
        self.failures: dict[str, str] = {}
        self.n_short: dict[str, int] = {}
        self.unplanned: dict[str, str] = {}  # why no engine can be made
        self.gates: dict[str, threading.Semaphore] = {}
        self.may_load = asyncio.Event()
        self.may_load.set()
        self.may_end = asyncio.Event()
        self.may_end.set()
        self.running: list[ScriptedModelEngine] = []
        self.n_loads = 0
        self.is_wrong = False

    def pool(
        self, max_models: int = 1, memory: int = 100 * GB, *, autoloads: bool = True
    ) -> ModelPool:
        return ModelPool(self.listed, self, Limits(max_models, memory), autoloads=autoloads)

    def named(self, name: str) -> ScriptedModelEngine:
        [found] = [one for one in self.running if one.entry.name == name]
        return found

    def entries(self) -> list[ModelEntry]:
        if self.is_wrong:
            raise ConfigError("The preset is wrong.")
        return list(self.listed)

    def needed_bytes(self, entry: ModelEntry) -> int:
        if entry.path == "missing":
            raise ModelFileError("There is no such file.")
        return self.needs.get(entry.name, GB)

    def text(self, entry: ModelEntry) -> ServedModel:
        nobody = InProcessEngineClient(ScriptedEngine(says("")))
        return served(nobody, entry.name, entry.aliases, entry.defaults)

    def engine(self, entry: ModelEntry) -> ScriptedModelEngine:
        if entry.name in self.unplanned:
            raise ModelFileError(self.unplanned[entry.name])
        self.n_loads += 1
        self.running.append(ScriptedModelEngine(entry, self))
        return self.running[-1]
