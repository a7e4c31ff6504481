"""Flags from all sources: the command line counts before the environment, that before presets,
those before the user's file, and that before the defaults."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass

from dllama.cli.flags.parser import FOREIGN_DEST, FlagParser
from dllama.cli.sources.level import Found, Level, joined
from dllama.errors import ConfigError

TYPED = "the command line"
DEFAULT = "default"


@dataclass(frozen=True, slots=True)
class Resolved:
    """`args` has all flags; `found` tells of those that are not defaults where they came from;
    `rest` are words that the parser does not know."""

    args: argparse.Namespace
    found: Level
    rest: list[str]


def typed(parser: FlagParser, words: Sequence[str]) -> tuple[Level, list[str]]:
    """Returns what a command line sets, and the words for another parser. argparse ends the process
    for words that it cannot read."""
    given, rest = parser.given(words)
    if rest and not parser.passes_on:
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    return {dest: Found(value, TYPED) for dest, value in given.items()}, rest


def resolve(parser: FlagParser, levels: Sequence[Level], rest: Sequence[str] = ()) -> Resolved:
    """Returns the flags of a command from its sources, those of more weight first. Raises
    ConfigError where one source sets flags that exclude each other, or a flag that is required is
    set nowhere."""
    found = merged(parser, levels)
    args = argparse.Namespace()
    for action in parser._actions:
        if isinstance(action, argparse._HelpAction | argparse._VersionAction):
            continue
        if action.dest in found:
            setattr(args, action.dest, found[action.dest].value)
        elif action.required and action.option_strings:
            parser.error(f"the following arguments are required: {action.option_strings[0]}")
        elif action.default is not argparse.SUPPRESS and not hasattr(args, action.dest):
            setattr(args, action.dest, parser.default_of(action))  # of two, the first's
    for dest, value in parser._defaults.items():
        if not hasattr(args, dest):
            setattr(args, dest, value)
    return Resolved(args, found, list(rest))


def merged(parser: FlagParser, levels: Sequence[Level]) -> dict[str, Found]:
    """Returns the values that count. A level does not set what one of more weight has set, nor
    the rival of such a flag."""
    exclusive = [
        frozenset(action.dest for action in group._group_actions)
        for group in parser._mutually_exclusive_groups
    ]
    rivals = [*parser.rivals, *((group, group) for group in exclusive)]
    found: dict[str, Found] = {}
    for level in levels:
        silenced = {
            dest
            for pair in rivals
            for one, other in (pair, pair[::-1])
            if not one.isdisjoint(found)
            for dest in other
        }
        fresh = {
            dest: value
            for dest, value in level.items()
            if dest not in found and dest not in silenced
        }
        _check_exclusive(exclusive, fresh)
        if FOREIGN_DEST in found and FOREIGN_DEST in level:  # they are only told, all of them
            found[FOREIGN_DEST] = joined(level[FOREIGN_DEST], found[FOREIGN_DEST])
        found |= fresh
    return found


def _check_exclusive(exclusive: Sequence[frozenset[str]], level: Level) -> None:
    for group in exclusive:
        named = [level[dest].origin for dest in sorted(group & set(level))]
        if len(named) > 1:
            raise ConfigError(
                f"{named[0]} and {named[1]} exclude each other; leave one of them out."
            )
