"""The flags that one source sets: each key of it is read as the command line would be."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from dllama.cli.flags.parser import FOREIGN_DEST, FlagParser, long_names
from dllama.errors import ConfigError

ON = ("1", "true", "on", "enabled", "yes")
OFF = ("0", "false", "off", "disabled", "no")


@dataclass(frozen=True, slots=True)
class Found:
    """The value of a flag, and the words for where it came from."""

    value: object
    origin: str


Level = Mapping[str, Found]
"""What one source sets, by the flags' dests."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A key of a source as it stands there: a flag, its value, and where that is."""

    action: argparse.Action
    flag: str  # the option that is meant, among the names of the action
    value: object  # a text, or what TOML has
    origin: str


def level_of(parser: FlagParser, entries: Iterable[Entry]) -> Level:
    """Returns the values of entries. Raises ConfigError, with their origin, for those that the
    parser refuses, and for two that are the same flag."""
    level: dict[str, Found] = {}
    for entry in entries:
        dest = entry.action.dest
        if dest == FOREIGN_DEST:
            level[dest] = joined(level.get(dest), Found(value_of(parser, entry), entry.origin))
            continue
        if dest in level:
            raise ConfigError(
                f"{level[dest].origin} and {entry.origin} set the same flag, {entry.flag}; leave "
                "one of them out."
            )
        level[dest] = Found(value_of(parser, entry), entry.origin)
    return level


def joined(first: Found | None, second: Found) -> Found:
    """Returns the flags of other programs of two sources, which are only told, all of them."""
    if first is None:
        return second
    assert isinstance(first.value, tuple) and isinstance(second.value, tuple)
    return Found((*first.value, *second.value), second.origin)


def value_of(parser: FlagParser, entry: Entry) -> object:
    """Returns the value of an entry, of the type that the flag gives it. Raises ConfigError."""
    action = entry.action
    try:
        if not (is_pair(action) or is_switched_on(action, entry)):
            is_yes_or_no = isinstance(action.const, bool)
            return not action.const if is_yes_or_no else parser.default_of(action)
        return given_quietly(parser, words_of(entry))[action.dest]
    except ConfigError as error:
        said = str(error).partition(": ")[2] if str(error).startswith("argument ") else str(error)
        raise ConfigError(f"{entry.origin}: {said}") from None


def given_quietly(parser: FlagParser, words: list[str]) -> dict[str, object]:
    """Returns what words set; raises ConfigError in place of ending the process."""
    before, parser.raises = parser.raises, True
    try:
        return parser.given(words, needs_all=False)[0]
    finally:
        parser.raises = before


def words_of(entry: Entry) -> list[str]:
    """Returns the words of a command line that say what an entry does; none for a switch that is
    off. Raises ConfigError."""
    action, flag = entry.action, entry.flag
    if is_pair(action):
        is_no = flag.startswith("--no-")
        is_on = is_switched_on(action, entry) != is_no
        positive = next(name for name in action.option_strings if not name.startswith("--no-"))
        return [positive if is_on else f"--no-{positive[2:]}"]
    if action.nargs == 0:
        return [flag] if is_switched_on(action, entry) else []
    if action.nargs not in (None, "?", 1):
        raise ConfigError(f"{flag} takes {action.nargs} values, and a key has one.")
    texts = [_text(one) for one in entry.value] if isinstance(entry.value, list) else None
    if texts is None:
        texts = [_text(entry.value)]
    elif not isinstance(action, argparse._AppendAction):
        texts = [",".join(texts)]
    if flag.startswith("--"):
        return [f"{flag}={text}" for text in texts]
    return [word for text in texts for word in (flag, text)]


def is_pair(action: argparse.Action) -> bool:
    """Returns whether a switch has a flag for off too."""
    return isinstance(action, argparse.BooleanOptionalAction)


def is_switched_on(action: argparse.Action, entry: Entry) -> bool:
    """Returns what a switch says. Raises ConfigError for what is neither on nor off."""
    if action.nargs == 0:
        text = _text(entry.value).lower()
        if text in ON or text in OFF:
            return text in ON
        raise ConfigError(f"{entry.value!r:.40} is neither true nor false.")
    return True


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict):
        return json.dumps(value)
    if isinstance(value, str | int | float):
        return str(value)
    raise ConfigError(f"{value!r:.60} is no value of a flag; write a text, a number or a list.")


def by_key(parser: FlagParser) -> dict[str, argparse.Action]:
    """Returns the flags by all their long names, without dashes."""
    return {name: action for action in parser.flags() for name in long_names(action)}


def entry_of(action: argparse.Action, key: str, value: object, origin: str) -> Entry:
    """Returns the entry of a flag that is named by one of its keys."""
    return Entry(action, f"--{key}", value, origin)
