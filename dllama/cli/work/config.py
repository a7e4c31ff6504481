"""Shows where the values of flags come from, for dllama config."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from cluster.security.home import home_folder
from dllama.cli.command_table import all_parsers, parser_of
from dllama.cli.flags.parser import FlagParser, long_names
from dllama.cli.sources.level import Found
from dllama.cli.sources.reading import untyped
from dllama.cli.sources.resolve import DEFAULT, resolve, typed
from dllama.cli.sources.user_file import FILE_NAME
from dllama.cli.sources.variables import PREFIX, unknown_variables
from dllama.cli.terminal.output import complain, note, show
from dllama.errors import DllamaError

SECRETS = ("api_key", "cluster_key")
HIDDEN = "(hidden)"


class Row(NamedTuple):
    """A flag, its value, where that comes from, and the commands that it holds for."""

    flag: str
    value: object
    origin: str
    commands: tuple[str, ...]


def run(args: argparse.Namespace) -> int:
    """Returns 1 where a value cannot be read."""
    path = home_folder() / FILE_NAME
    problems: list[str] = []
    if args.command is not None:
        rows = list(rows_of(args.command, parser_of(args.command), args.words))
    else:
        rows = list(joined(set_rows(problems)))
        problems += [
            f"{name} is set, and no flag or setting is called so."
            for name in unknown_variables(dict(all_parsers()), os.environ)
        ]
    if args.json:
        told = {"file": str(path), "flags": [row._asdict() for row in rows], "problems": problems}
        print(json.dumps(told, indent=1, default=str))
    else:
        note(f"{path} {'is read' if path.exists() else 'is not there'}; variables: {PREFIX}*")
        _show(rows, with_commands=args.command is None)
        for problem in problems:
            complain(problem)
    return 1 if problems else 0


def rows_of(command: str, parser: FlagParser, words: Sequence[str]) -> Iterator[Row]:
    """Yields all flags of a command. Raises ConfigError where one cannot be read."""
    first = [typed(parser, words)[0]] if words else []
    found = resolve(parser, [*first, *untyped(parser, command)])
    shown: set[str] = set()
    for action in parser.flags():
        if action.dest in shown or not long_names(action):
            continue
        shown.add(action.dest)
        default = Found(getattr(found.args, action.dest, None), DEFAULT)
        where = found.found.get(action.dest, default)
        value = HIDDEN if action.dest in SECRETS and where.value else where.value
        yield Row(f"--{long_names(action)[0]}", value, where.origin, (command,))


def set_rows(problems: list[str]) -> Iterator[Row]:
    """Yields what is set for any command; what cannot be read is added to the problems."""
    for command, parser in all_parsers():
        try:
            yield from (r for r in rows_of(command, parser, ()) if r.origin != DEFAULT)
        except DllamaError as error:
            if str(error) not in problems:
                problems.append(str(error))


def joined(rows: Iterable[Row]) -> Iterator[Row]:
    """Yields one row for what several commands have from the same place."""
    found: dict[tuple[str, str], Row] = {}
    for row in rows:
        key = (row.flag, row.origin)
        known = found.get(key)
        found[key] = row._replace(commands=(*known.commands, *row.commands)) if known else row
    yield from found.values()


def _show(rows: list[Row], *, with_commands: bool) -> None:
    from rich.table import Table
    from rich.text import Text

    if not rows:
        note("nothing is set: all flags have their defaults")
        return
    table = Table(box=None, pad_edge=False)
    for name in ("FLAG", "VALUE", "FROM", *(("FOR",) if with_commands else ())):
        table.add_column(name)
    for row in rows:
        cells = (row.flag, _text(row.value), row.origin, ", ".join(row.commands))
        table.add_row(*map(Text, cells if with_commands else cells[:3]))
    show(table)


def _text(value: object) -> str:
    if value is None or value == ():
        return "-"
    if isinstance(value, list | tuple):
        return ",".join(map(str, value))
    return str(value)
