"""Models that a server has from its start to its end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext

from api.config import AnswerDefaults
from api.engines.client import EngineClient
from api.errors import unknown_model
from api.served_model import ServedModel
from api.sleep import IdleSleep
from dllama.errors import ConfigError
from dllama.requests import EngineState


class FixedModels:
    """Satisfies api.models.models.Models. The first model answers requests that name none; `sleep`
    is that of the only one."""

    def __init__(self, models: Iterable[ServedModel], sleep: IdleSleep | None = None) -> None:
        self._models = tuple(models)
        self._sleep = sleep
        self._is_stopping = False
        self._by_name: dict[str, ServedModel] = {}
        for model in self._models:
            for name in model.names:
                if self._by_name.setdefault(name, model) is not model:
                    raise ConfigError(
                        f"Two models are called {name!r}; give one of them another --alias."
                    )
        if not self._models:
            raise ConfigError("The server has no model to serve; name one with --model.")
        self._started: list[EngineClient] = []
        self._watch: asyncio.Task[None] | None = None

    def all(self) -> tuple[ServedModel, ...]:
        return self._models

    def knows(self, name: str) -> bool:
        return name in self._by_name

    def defaults_of(self, name: str | None) -> AnswerDefaults:
        return self.look(name).defaults

    @asynccontextmanager
    async def use(
        self, name: str | None, *, loads: bool | None = None, keep_s: float | None = None
    ) -> AsyncIterator[ServedModel]:
        """These models stay loaded, whatever is asked, or sleep if they are told to."""
        model = self.look(name)
        if self._sleep is None or self._is_stopping:
            yield model
            return
        async with self._sleep.request():
            yield model

    def hold(self, model: ServedModel) -> AbstractContextManager[None]:
        return nullcontext()  # a model with open sequences does not sleep

    def last_load(self, model: ServedModel) -> tuple[float, float] | None:
        return None  # requests wait for nothing else

    def look(self, name: str | None) -> ServedModel:
        """Returns the model for a request that asks for `name`: the only one whatever the name is,
        because clients keep those of other servers in their settings; of several the one that is
        called so, or the first for None. Raises ApiError 404 if there is none."""
        if name is None or len(self._models) == 1:
            return self._models[0]
        return self._named(name)

    async def shown(self, name: str | None, *, is_exact: bool = False) -> ServedModel:
        return self._named(name or "") if is_exact else self.look(name)

    def _named(self, name: str) -> ServedModel:
        if name not in self._by_name:
            raise unknown_model(name, [model.id for model in self._models])
        return self._by_name[name]

    def not_serving(self) -> EngineState | None:
        """A model that sleeps serves: requests wait until it is awake."""
        if self._sleep is not None and self._sleep.is_waking:
            return None
        states = (model.engine.state for model in self._models)
        return next((state for state in states if state.state not in ("ready", "sleeping")), None)

    async def start(self) -> None:
        for model in self._models:
            await model.engine.start()
            self._started.append(model.engine)
        if self._sleep is not None:
            self._watch = asyncio.create_task(self._sleep.watch(), name="put the model to sleep")

    def stop(self) -> None:
        self._is_stopping = True
        if self._sleep is not None:
            self._sleep.stop()

    async def close(self) -> None:
        if self._watch is not None:
            self._watch.cancel()
            await asyncio.gather(self._watch, return_exceptions=True)
        while self._started:
            await self._started.pop().close()
