"""How far a model of a router is, as clients are told."""

from __future__ import annotations

from dataclasses import dataclass

from api.models.entry import ModelEntry
from api.models.events import ModelEvents
from api.models.residents import Phase, Resident
from dllama.requests import EngineState

STAGE = "text_model"  # llama-server's name for the load of a model without parts


@dataclass(frozen=True, slots=True)
class ModelStatus:
    """`value` is "unloaded", "loading", "loaded" or "sleeping"; `reason` says why an unloaded one
    has failed, or that it is not downloaded."""

    value: str
    progress: float | None = None  # 0..1 of a load
    detail: str = ""
    reason: str = ""
    is_downloaded: bool = True

    def row(self) -> dict[str, object]:
        """Returns the status as /models shows it."""
        row: dict[str, object] = {"value": self.value}
        if not self.is_downloaded:
            row |= {"downloaded": False, "reason": self.reason}
        elif self.reason:
            row |= {"failed": True, "exit_code": 1, "reason": self.reason}
        if self.progress is not None:
            row |= {"progress": self._progress(), "detail": self.detail}
        return row

    def event(self) -> dict[str, object]:
        """Returns the data of an event, as llama-server's page reads it."""
        told: dict[str, object] = {"status": self.value}
        if self.value == "unloaded":
            told["exit_code"] = 1 if self.reason else 0
        if self.reason:
            told["reason"] = self.reason
        if self.progress is not None:
            told |= {"progress": self._progress(), "detail": self.detail}
        return told

    def _progress(self) -> dict[str, object]:
        return {"stages": [STAGE], "current": STAGE, "value": self.progress}


def status_of(entry: ModelEntry, resident: Resident, state: EngineState | None) -> ModelStatus:
    """Returns the status of a model; `state` is that of its engine, if there is one."""
    if entry.fault and resident.phase is Phase.UNLOADED:
        return ModelStatus("unloaded", reason=entry.fault, is_downloaded=entry.is_downloaded)
    if resident.phase is Phase.LOADING:
        if state is None:
            return ModelStatus("loading", 0.0)
        return ModelStatus("loading", round(state.progress, 2), state.detail)
    if resident.phase is Phase.LOADED:
        return ModelStatus("loaded")
    if resident.phase is Phase.UNLOADED and resident.failure is not None:
        return ModelStatus("unloaded", reason=resident.failure.reason)
    return ModelStatus("sleeping" if resident.is_asleep else "unloaded")


class StatusBoard:
    """The status of every model as listeners know it, who are told of each change."""

    def __init__(self, events: ModelEvents) -> None:
        self._events = events
        self._known: dict[str, ModelStatus] = {}

    def add(self, name: str, status: ModelStatus) -> None:
        """Adds a model, unless it is known; nobody is told."""
        self._known.setdefault(name, status)

    def remove(self, name: str) -> None:
        del self._known[name]
        self._events.tell(name, "model_remove")

    def note(self, name: str, status: ModelStatus) -> None:
        """Tells what has changed, by the names that llama-server's router has for it."""
        before = self._known[name]
        if status == before:
            return
        self._known[name] = status
        begins = status.value == "loading" and before.value != "loading"
        self._events.tell(name, "model_status" if begins else "status_change", status.event())
