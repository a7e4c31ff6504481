"""The models of a router's list: those that can be loaded, and those that cannot as things are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from api.models.entry import ModelEntry
from dllama.cli.flags.settings import EngineSettings, ServerSettings

CACHE = "cache"


@dataclass(frozen=True, slots=True)
class ListedModel:
    """A model of the list, and the settings that it is loaded with."""

    entry: ModelEntry
    engine: EngineSettings
    server: ServerSettings
    hides_cached: bool = False  # it stands for the model of the cache that has its file


@dataclass(frozen=True, slots=True)
class FaultyModel:
    """A model of the list that cannot be loaded; `entry.fault` says why."""

    entry: ModelEntry


AnyModel = ListedModel | FaultyModel


def without_hidden(models: Sequence[AnyModel]) -> list[AnyModel]:
    """Returns the models without those of the cache that a preset stands for, whose names become
    further ones of it."""
    standing = [m for m in models if isinstance(m, ListedModel) and m.hides_cached]
    stands = {m.entry.path: m for m in standing if m.entry.source != CACHE}
    hidden = [m.entry for m in models if m.entry.source == CACHE and m.entry.path in stands]
    more = {stands[entry.path].entry.name: entry.names for entry in hidden}
    return [
        replace(m, entry=replace(m.entry, aliases=(*m.entry.aliases, *more.get(m.entry.name, ()))))
        for m in models
        if m.entry not in hidden
    ]


def without_clashes(models: Sequence[AnyModel]) -> list[AnyModel]:
    """Returns the models, of which no two share a name: a model with an alias that an earlier one
    has too, or that is the name of another, cannot be loaded, and loses that alias."""
    owners = {model.entry.name: model.entry.name for model in models}
    found: list[AnyModel] = []
    for model in models:
        entry = model.entry
        clashes = [alias for alias in entry.aliases if alias in owners]
        owners |= {alias: entry.name for alias in entry.aliases if alias not in clashes}
        if not clashes:
            found.append(model)
            continue
        entry = replace(entry, aliases=tuple(a for a in entry.aliases if a not in clashes))
        if not entry.fault:
            fault = (
                f"Its alias {clashes[0]!r} is a name of {owners[clashes[0]]!r} too; give one of "
                "them another."
            )
            entry = replace(entry, fault=fault, loads_on_startup=False)
        found.append(FaultyModel(entry))
    return found
