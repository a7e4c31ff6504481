"""The models of a server, as its routes see them."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager, AbstractContextManager
from typing import Protocol

from api.config import AnswerDefaults
from api.served_model import ServedModel
from dllama.requests import EngineState


class Models(Protocol):
    """All models of a server, by their names. Called on the event loop only."""

    def all(self) -> tuple[ServedModel, ...]:
        """Returns the models that are loaded, or that load or sleep by themselves."""
        ...

    def knows(self, name: str) -> bool:
        """Returns whether a model is called so."""
        ...

    def defaults_of(self, name: str | None) -> AnswerDefaults:
        """Returns what a request that names this model means where it says nothing. Raises ApiError
        where there is no such model."""
        ...

    def use(
        self, name: str | None, *, loads: bool | None = None, keep_s: float | None = None
    ) -> AbstractAsyncContextManager[ServedModel]:
        """Waits until a model is loaded and awake, and keeps it so meanwhile. `loads` says whether
        one that is missing is loaded for this request, None as the server's flags have it; `keep_s`
        how long it stays loaded without work afterwards, None as before. Raises ApiError where
        there is no such model, and EngineBusy where it cannot be loaded."""
        ...

    def hold(self, model: ServedModel) -> AbstractContextManager[None]:
        """Keeps a model that is in use loaded meanwhile."""
        ...

    def last_load(self, model: ServedModel) -> tuple[float, float] | None:
        """Returns when the last load of a model that is in use began and ended, by time.monotonic;
        None where nobody knows: whoever waited for it waited for a load then."""
        ...

    def look(self, name: str | None) -> ServedModel:
        """Returns a model as it is now, without a claim to it. Raises ApiError where there is none
        of this name, or it is not loaded."""
        ...

    async def shown(self, name: str | None, *, is_exact: bool = False) -> ServedModel:
        """Returns a model to be described, loaded or not. If the name `is_exact`, no other one is
        returned in its place. Raises ApiError, and DllamaError where its files cannot be read."""
        ...

    def not_serving(self) -> EngineState | None:
        """Returns the state of the first model that ought to serve and does not."""
        ...

    async def start(self) -> None: ...

    def stop(self) -> None:
        """Ends the waiting of requests for models: the server stops. They get EngineBusy."""
        ...

    async def close(self) -> None:
        """Ends the engines of all models."""
        ...
