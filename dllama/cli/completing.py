"""Completion in the shell, by argcomplete: it asks this program with the line so far, and the
parsers answer. Models are those of the cache, and files."""

from __future__ import annotations

import argparse
import os
from typing import NoReturn

from dllama.cli.command_table import (
    COMMANDS,
    NAME,
    PROGRAMS,
    SHORT,
    add_mode_flags,
    is_command,
    parser_of,
)
from dllama.cli.flags.parser import FlagParser
from dllama.errors import DllamaError

LINE, POINT = "COMP_LINE", "COMP_POINT"  # the line so far, and the cursor in it
ENDINGS = ("gguf", "m")
MODELS = ("model", "draft_model")  # dests of flags that take a model
PULLED = ("show", "rm")  # commands whose words are models that were pulled


def complete(command: str = "") -> NoReturn:
    """Answers the shell, and ends the process. `command` is that of the program, if it has one."""
    try:
        import argcomplete
    except ImportError:  # the package was taken away: there is nothing to complete with
        raise SystemExit(1) from None
    command = command or command_of_line()
    parser = parser_of(command) if command else parser_without_command()
    argcomplete.autocomplete(with_models(parser, command), always_complete_options=False)
    raise AssertionError("argcomplete ends the process")


def command_of_line() -> str:
    """Returns the command of the line so far, "" for none, and has the line begin with it."""
    line = os.environ.get(LINE, "")
    _, _, rest = line.partition(" ")
    command, space, _ = rest.lstrip().partition(" ")
    command = SHORT.get(command, command)
    if not space or not is_command(command) or command == NAME:
        return ""
    n_dropped = len(line) - len(rest.lstrip())
    os.environ[LINE] = line[n_dropped:]
    os.environ[POINT] = str(int(os.environ.get(POINT) or len(line)) - n_dropped)
    return command


def parser_without_command() -> FlagParser:
    """Returns the parser of a line that names no command: all flags that may follow, and all
    commands."""
    parser = parser_of("root")
    for other in (parser_of("run"), parser_of(NAME)):
        for action in other.flags():
            if not set(action.option_strings) & set(parser._option_string_actions):
                parser._add_action(action)
    parser.conflict_handler = "resolve"
    add_mode_flags(parser)
    commands = parser.add_subparsers()
    for name, summary in COMMANDS.items():
        commands.add_parser(name, help=summary, add_help=False)
    return parser


def shell_code(shell: str) -> str:
    """Returns what a shell reads at its start."""
    import argcomplete

    programs = ["dllama", *(f"dllama-{name}" for name in PROGRAMS)]
    text: str = argcomplete.shellcode(programs, shell=shell)
    return text


def with_models(parser: FlagParser, command: str) -> FlagParser:
    """Returns the parser, whose flags and words of models are completed by those that are here."""
    from argcomplete.completers import FilesCompleter

    files = FilesCompleter(ENDINGS)

    def models(prefix: str, **_: object) -> list[str]:
        return [*names_here(prefix), *files(prefix)]

    def pulled(prefix: str, **_: object) -> list[str]:
        return names_here(prefix)

    for action in parser._actions:
        if action.dest in MODELS and action.option_strings:
            _complete_by(action, models)
        elif command in PULLED and not action.option_strings:
            _complete_by(action, pulled)
    return parser


def _complete_by(action: argparse.Action, completer: object) -> None:
    action.completer = completer  # type: ignore[attr-defined]  # where argcomplete looks


def names_here(prefix: str) -> list[str]:
    """Returns the names of pulled models that begin so; none where they cannot be listed."""
    from dllama.hub.found import models_here
    from dllama.hub.settings import hub_settings

    try:
        return [
            model.name for model in models_here(hub_settings()) if model.name.startswith(prefix)
        ]
    except DllamaError:
        return []
