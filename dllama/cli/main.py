"""dllama: one program that runs, measures, inspects and talks to models."""

from __future__ import annotations

import argparse
import functools
import importlib
import sys

from dllama.cli.terminal.guarded import guarded
from dllama.host.garbage import collector_paused

DESCRIPTION = """Run large language models on the computers you already have."""

COMMANDS = {
    "run": "answer one prompt and end",
    "up": "start workers and a root on this machine, and chat",
    "chat": "talk to a running server",
    "bench": "measure prefill and decode speed",
    "perplexity": "measure how well a model predicts a text",
    "pull": "download models by their names",
    "list": "list the models on this machine",
    "show": "tell what is known of one of them",
    "rm": "remove some of them",
    "ps": "list the models that a running server has loaded",
    "stop": "have a running server free the memory of one",
    "plan": "say how fast a model would be on which machines, before it is loaded",
    "nodes": "list, add and remove the workers of a running server",
    "inspect": "show what a model file holds",
    "convert": "write a model as a GGUF file",
    "quantize": "write a model with smaller weights, and show their errors",
    "warmup": "compile the kernels for this machine ahead of time",
    "key": "make a key that admits nodes to a cluster",
    "root": "serve a model: the same as dllama-root",
    "worker": "compute for a root: the same as dllama-worker",
}
"""Each is the module of its name in this package. Only the one that is asked for is imported: the
others would bring in web servers and compilers that it does not need."""

SHORT = {"ls": "list"}  # as users of other programs type it

PROGRAMS = ("root", "worker")  # commands that are programs too, and read their flags themselves


def build_parser(only: str | None = None) -> argparse.ArgumentParser:
    """The parser of all commands, or of one."""
    from dllama.cli.flags.arguments import make_parser

    parser = make_parser("dllama", DESCRIPTION)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name, summary in COMMANDS.items():
        if name in PROGRAMS or (only is not None and name != only):
            commands.add_parser(name, help=summary, add_help=False)
        else:
            importlib.import_module(f"dllama.cli.commands.{name}").add_parser(commands, summary)
    return parser


def run_program(name: str, argv: list[str] | None) -> int:
    """Runs a command that is a program too, and returns its exit code."""
    code: int = importlib.import_module(f"dllama.cli.commands.{name}").run(argv)
    return code


def start(argv: list[str] | None) -> int:
    words = sys.argv[1:] if argv is None else argv
    command = words[0] if words else ""
    if command in SHORT:
        command = SHORT[command]
        words = [command, *words[1:]]
    if command in PROGRAMS:
        return run_program(command, words[1:])
    with collector_paused():
        parser = build_parser(command)
    args, rest = parser.parse_known_args(words)
    if rest and command != "up":  # up hands on what it does not know to the root
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    args.rest = rest
    from dllama.logs.settings import LogSettings, set_up_logging

    set_up_logging(LogSettings())
    if getattr(args, "model", None) is not None:
        from dllama.cli.model_name import name_models

        name_models(args)
    code: int = args.run(args)
    return code


# The console scripts. What a command needs is imported within the guard, which says what fails.
main = guarded(start)
root = guarded(functools.partial(run_program, "root"))
worker = guarded(functools.partial(run_program, "worker"))
