"""Plugins: commands, families of models and dialects of tool calls that other packages bring, by
their entry points. One that is broken is named once and left out."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Collection
from importlib.metadata import EntryPoint, entry_points
from typing import TypeVar

log = logging.getLogger(__name__)

COMMANDS = "dllama.commands"
MODELS = "dllama.models"
TOOL_DIALECTS = "dllama.tool_dialects"

Made = TypeVar("Made")


def plugins_of(group: str) -> dict[str, EntryPoint]:
    """Returns the plugins of a group by their names; of two with one name the first, by what they
    load."""
    points = sorted(entry_points(group=group), key=lambda point: (point.name, point.value))
    return {point.name: point for point in reversed(points)}


def load(point: EntryPoint, kind: type[Made]) -> Made | None:
    """Returns what a plugin brings, None where it cannot be used, which is told."""
    try:
        made = point.load()
        if not isinstance(made, kind):
            raise TypeError(f"{point.value} is no {kind.__name__}")
    except Exception as error:  # a stranger's code raises anything
        leave_out(point, f"{type(error).__name__}: {error}")
        return None
    return made


def load_all(
    group: str, kind: type[Made], name_of: Callable[[Made], str], taken: Collection[str]
) -> list[Made]:
    """Returns what all plugins of a group bring, but for those that are broken and those that are
    called as something of `taken`, or as one another."""
    names, found = set(taken), []
    for point in plugins_of(group).values():
        made = load(point, kind)
        if made is None:
            continue
        if name_of(made) in names:
            leave_out(point, f"there is a {name_of(made)} already")
            continue
        names.add(name_of(made))
        found.append(made)
    return found


def leave_out(point: EntryPoint, why: str) -> None:
    """Says that a plugin is left out, and why."""
    _tell_once(
        f"the plugin {point.name} of {package_of(point)} ({point.group}) is left out: {why}; mend "
        "or uninstall it"
    )


def package_of(point: EntryPoint) -> str:
    """Returns the name of the package that brings a plugin."""
    return point.dist.name if point.dist is not None else "an unknown package"


@functools.cache
def _tell_once(text: str) -> None:
    log.warning("%s", text)
