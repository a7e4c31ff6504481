"""A model of a router's list, and the seams to what reads the list and starts engines."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from api.config import AnswerDefaults
from api.engines.client import EngineClient
from api.served_model import ServedModel

DEFAULT_STOP_S = 10.0


@dataclass(frozen=True, slots=True)
class ModelEntry:
    """A model of the list. Equal entries are loaded in the same way; one with a `fault` cannot be
    loaded, for the reason that this sentence gives."""

    name: str
    aliases: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    source: str = "preset"  # or "models_dir", "cache", "package"
    path: str = ""
    size_bytes: int = 0  # of its files
    modified_s: float = 0.0  # unix time
    args: tuple[str, ...] = ()  # its flags, as dllama-root would be given them
    preset: str = ""  # the same as a section of a preset file
    defaults: AnswerDefaults = field(default_factory=AnswerDefaults)
    is_pinned: bool = False
    loads_on_startup: bool = False
    stop_s: float = DEFAULT_STOP_S  # that answers may go on after it was unloaded by hand
    idle_s: float | None = None  # without work until it sleeps; None: never
    can_remove: bool = False  # it was downloaded by dllama
    fault: str = ""
    is_downloaded: bool = True  # False: that is its fault

    @property
    def names(self) -> tuple[str, ...]:
        return (self.name, *self.aliases)


class ModelEngine(Protocol):
    """One engine of a model. A state of its client says how far it is."""

    @property
    def client(self) -> EngineClient: ...

    async def start(self) -> None:
        """Begins to load. Raises DllamaError where that cannot begin."""
        ...

    async def end(self) -> None:
        """Ends the engine, started or not; its memory on this machine is free then."""
        ...


class ModelSource(Protocol):
    """Where models come from. All methods but `engine` read files, and are called in threads; none
    but `entries` is asked about an entry with a fault."""

    def entries(self) -> list[ModelEntry]:
        """Returns the models that there are now, also those that cannot be loaded. Raises
        ConfigError where the list is wrong as a whole."""
        ...

    def needed_bytes(self, entry: ModelEntry) -> int:
        """Returns the memory that a model takes of all nodes. Raises DllamaError where its files
        cannot be read."""
        ...

    def text(self, entry: ModelEntry) -> ServedModel:
        """Returns a model with all that turns text into tokens, and an engine that is never
        started. Raises DllamaError."""
        ...

    def engine(self, entry: ModelEntry) -> ModelEngine:
        """Returns an engine that is not started."""
        ...
