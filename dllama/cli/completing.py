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

ZSH = r"""#compdef %(programs)s
_dllama_complete() {
    local -a found
    local line="${(j: :)words[1,CURRENT-1]} $PREFIX"
    found=("${(@ps:\v:)$(_ARGCOMPLETE=1 _ARGCOMPLETE_SHELL=zsh _ARGCOMPLETE_SUPPRESS_SPACE=1 \
        _ARGCOMPLETE_IFS=$'\v' COMP_LINE="$line" COMP_POINT=${#line} \
        "${(Q)~words[1]}" 8>&1 9>/dev/null 1>/dev/null 2>&1 </dev/null)}")
    found=(${found:#})
    local -a ends
    [[ ${#found} == 1 && $found[1] == *[=/] ]] && ends=(-S '')
    _describe dllama found -o nosort $ends
}
if [[ $zsh_eval_context == *func ]]; then
    _dllama_complete "$@"
else
    (( $+functions[compdef] )) || { autoload -Uz compinit && compinit -i }
    compdef _dllama_complete %(programs)s
fi
"""
"""Our own for zsh: argcomplete's asks about the whole line, also where it begins with another
command, and needs a `compinit` that a new user's .zshrc does not have."""


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
    _, _, rest = line.lstrip().partition(" ")  # fish keeps the space after `;`
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
    if shell == "zsh":
        return ZSH % {"programs": " ".join(programs)}
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
