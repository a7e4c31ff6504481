"""The parsers of all commands: argparse's, which can also be asked without a command line."""

from __future__ import annotations

import argparse
from collections.abc import Collection, Sequence
from typing import NoReturn

from dllama import __version__
from dllama.errors import ConfigError


class Unset(list[object]):
    """Stands in a namespace for a flag that was not given. A list, as argparse appends to it."""


UNSET = Unset()


class FlagParser(argparse.ArgumentParser):
    """`own` are flags that mean something else than those of the same name of other commands: what
    is set for all commands does not reach them. `rivals` are pairs of groups of flags: where a
    source names one of a group, sources of less weight do not count for the other group.
    `passes_on`: words that the parser does not know are for another."""

    own: Collection[str] = frozenset()
    rivals: Sequence[tuple[frozenset[str], frozenset[str]]] = ()
    raises = False
    passes_on = False

    def error(self, message: str) -> NoReturn:
        """Ends the process with the usage, as argparse does; within `given` raises ConfigError."""
        if self.raises:
            raise ConfigError(message)
        super().error(message)

    def given(
        self, words: Sequence[str], *, needs_all: bool = True
    ) -> tuple[dict[str, object], list[str]]:
        """Returns what the words set, by the flags' dests and without defaults, and the words that
        are unknown. Positional arguments are among it, of which none may be missing unless not
        `needs_all`."""
        marks = argparse.Namespace(**{action.dest: UNSET for action in self._actions})
        wanted = [
            action
            for action in self._actions
            if action.required and (action.option_strings or not needs_all)
        ]
        for action in wanted:  # may come from elsewhere
            action.required = False
        try:
            found, rest = self.parse_known_args(list(words), marks)
        finally:
            for action in wanted:
                action.required = True
        known = {action.dest for action in self._actions}
        return {
            name: list(value) if isinstance(value, Unset) else value
            for name, value in vars(found).items()
            if name in known and value is not UNSET
        }, rest

    def flags(self) -> list[argparse.Action]:
        """Returns the flags that can be set from elsewhere too: all but those that only print, and
        those of other programs."""
        return [
            action
            for action in self._actions
            if action.option_strings
            and not isinstance(action, argparse._HelpAction | argparse._VersionAction)
            and action.dest != FOREIGN_DEST
        ]

    def action_of(self, flag: str) -> argparse.Action:
        """Returns the action of an option. Raises KeyError for one that there is not."""
        return self._option_string_actions[flag]

    def default_of(self, action: argparse.Action) -> object:
        """Returns a flag's default, read as argparse reads it."""
        default: object = action.default
        return self._get_value(action, default) if isinstance(default, str) else default


FOREIGN_DEST = "foreign"  # the dest of flags of llama-server that have no part of their own here


class HelpFormatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Keeps examples as they are written and shows defaults, but not where there are none."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        has_none = action.default in (None, argparse.SUPPRESS, (), 0, "") or action.nargs == 0
        if has_none or action.dest == "model":  # that one says so in words
            return action.help
        return super()._get_help_string(action)


def make_parser(prog: str, description: str, epilog: str = "") -> FlagParser:
    """Returns the parser of a program."""
    parser = FlagParser(
        prog=prog, description=description, epilog=epilog, formatter_class=HelpFormatter
    )
    parser.add_argument("--version", action="version", version=f"{prog} {__version__}")
    return parser


def long_names(action: argparse.Action) -> list[str]:
    """Returns the names of a flag as keys have them: without dashes, without `no-` forms."""
    longs = [name[2:] for name in action.option_strings if name.startswith("--")]
    if isinstance(action, argparse.BooleanOptionalAction):
        return [name for name in longs if not name.startswith("no-")]
    return longs
