"""dllama: one program that runs, measures, inspects and talks to models."""

from __future__ import annotations

import functools
import importlib
import os
import sys

from dllama.cli.command_table import (
    COMMANDS,
    NAME,
    PROGRAMS,
    SHORT,
    build_parser,
    hybrid_parser,
    parser_of,
    plugin_commands,
    version_parser,
)
from dllama.cli.flags.parser import FlagParser
from dllama.cli.mode import FORCED, Mode, mode_of
from dllama.cli.terminal.guarded import guarded
from dllama.host.garbage import collector_paused

COMPLETING = "_ARGCOMPLETE"  # the shell asks, and sets this
QUESTIONS = ("-h", "--help", "--version")


def answer_shell(command: str = "") -> None:
    """Ends the process with an answer where the shell asks how to complete a line. `command` is
    that of the program, if it has one."""
    if COMPLETING in os.environ:
        from dllama.cli.completing import complete

        complete(command)


def run_program(name: str, argv: list[str] | None) -> int:
    """Runs a command that is a program too, and returns its exit code."""
    answer_shell(name)
    code: int = importlib.import_module(f"dllama.cli.commands.{name}").run(argv)
    return code


def start(argv: list[str] | None) -> int:
    """Runs the command that the words begin with, or what they mean without one, and returns its
    exit code."""
    answer_shell()
    words = sys.argv[1:] if argv is None else argv
    command = SHORT.get(words[0], words[0]) if words else ""
    if command in PROGRAMS:
        return run_program(command, words[1:])
    if command in COMMANDS:
        with collector_paused():
            parser = parser_of(command)
        return run_command(command, parser, words[1:])
    if command and not command.startswith("-") and command in plugin_commands():
        log_for_people()
        return run_command(command, parser_of(command), words[1:])
    if is_about_all(words):
        if words[0] == "--version":
            version_parser().parse_args(words[:1])
        build_parser(command).parse_args(words)  # which says what there is, and ends the process
    return start_mode(words)


def is_about_all(words: list[str]) -> bool:
    """Returns whether words are no flags of a mode: an unknown command, or a question about the
    whole program."""
    is_question = any(word in QUESTIONS for word in words)
    is_mode = any(word in FORCED for word in words)
    return bool(words) and (not words[0].startswith("-") or (is_question and not is_mode))


def start_mode(words: list[str]) -> int:
    """Runs what the words mean without a command."""
    mode, rest = mode_of(
        words, is_typed_to=sys.stdin.isatty(), is_read_by_a_person=sys.stdout.isatty()
    )
    if mode is Mode.SERVER:
        return run_program("root", rest)
    if mode is Mode.CLI:
        return run_command("run", parser_of("run"), rest)
    if mode is Mode.CHAT and any(word.split("=")[0] == "--url" for word in rest):
        return run_command("chat", parser_of("chat"), rest)
    return run_command(NAME, hybrid_parser(is_private=mode is Mode.CHAT), rest)


def log_for_people() -> None:
    from dllama.logs.settings import LogSettings, set_up_logging

    set_up_logging(LogSettings())


def run_command(command: str, parser: FlagParser, words: list[str]) -> int:
    """Runs a command with its flags, and returns its exit code."""
    from dllama.cli.sources.reading import read_flags

    found = read_flags(parser, command, words)
    args = found.args
    args.rest = found.rest
    log_for_people()
    if getattr(args, "model", None) is not None:
        from dllama.cli.model_name import name_models

        name_models(args)
    code: int = args.run(args)
    return code


# The console scripts. What a command needs is imported within the guard, which says what fails.
main = guarded(start)
root = guarded(functools.partial(run_program, "root"))
worker = guarded(functools.partial(run_program, "worker"))
