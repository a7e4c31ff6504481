"""The names of a router's models."""

from __future__ import annotations

from collections.abc import Iterable

from api.errors import ApiError
from api.models.entry import ModelEntry
from api.models.refusals import unusable
from dllama.errors import ConfigError, ModelNameError
from dllama.hub.found import means
from dllama.hub.names import parse_name


class ModelNames:
    """Models by their names and aliases. One that was downloaded has every name that it could be
    downloaded by."""

    def __init__(self, entries: Iterable[ModelEntry]) -> None:
        """Raises ConfigError where two models share a name."""
        self._entries = {entry.name: entry for entry in entries}
        self._by_name: dict[str, ModelEntry] = {}
        for entry in self._entries.values():
            for name in entry.names:
                if self._by_name.setdefault(name, entry) is not entry:
                    raise ConfigError(
                        f"Two models are called {name!r}: {self._by_name[name].name!r} and "
                        f"{entry.name!r}; give one of them another name or alias."
                    )

    def entries(self) -> tuple[ModelEntry, ...]:
        return tuple(self._entries.values())

    def has(self, name: str) -> bool:
        """Returns whether a model has this name, not as an alias."""
        return name in self._entries

    def holds(self, entry: ModelEntry) -> bool:
        """Returns whether the list has just this entry."""
        return self._entries.get(entry.name) == entry

    def knows(self, name: str) -> bool:
        return self._find(name) is not None

    def entry(self, name: str | None) -> ModelEntry:
        """Returns the model that is called so, the only one for None. Raises ApiError."""
        if name is None and len(self._entries) == 1:
            return next(iter(self._entries.values()))
        if name is None:
            raise ApiError(
                400,
                "The request names no model, and this server has several: name one of "
                f"{_listed(self._entries)} as `model`.",
                param="model",
            )
        found = self._find(name)
        if found is None:
            raise ApiError(
                404,
                f"The model {name!r:.200} was not found: it does not exist here; this server has "
                f"{_listed(self._entries)}. Name one of these; GET /v1/models lists them.",
                param="model",
                code="model_not_found",
            )
        return found

    def usable(self, name: str | None) -> ModelEntry:
        """Returns the model that is called so. Raises as `entry`, and where it cannot be loaded as
        things are."""
        found = self.entry(name)
        if found.fault:
            raise unusable(found)
        return found

    def _find(self, name: str) -> ModelEntry | None:
        if name in self._by_name:
            return self._by_name[name]
        try:
            meant = parse_name(name)
        except ModelNameError:
            return None
        return next((e for known, e in self._by_name.items() if means(meant, known)), None)


def _listed(names: Iterable[str]) -> str:
    known = list(names)
    shown = ", ".join(known[:20])
    return shown if len(known) <= 20 else f"{shown}, and {len(known) - 20} more"
