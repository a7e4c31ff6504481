"""The commands: a row each, and the parser of each. A command's module is imported when it is asked
for, and imports what it computes with when it runs."""

from __future__ import annotations

import argparse
import functools
import importlib
from collections.abc import Iterator
from contextlib import suppress
from types import ModuleType
from typing import TYPE_CHECKING, TypeAlias

from dllama.cli.flags.parser import FlagParser, make_parser
from dllama.errors import ConfigError

if TYPE_CHECKING:  # dllama.plugins looks at all that is installed: imported where it is needed
    from importlib.metadata import EntryPoint

DESCRIPTION = """Run large language models on the computers you already have.

Without a command, on a terminal: a server, its page, and a chat with it. With -p, or with piped
text: one answer. All flags of a server or of `dllama run` count there."""
EPILOG = """Flags can also be set by variables, such as DLLAMA_MODEL, and in
~/.config/dllama/config.toml: `dllama config` shows which are.

Exit codes: 0 done, 1 failed, 2 for flags that do not fit, 130 after Ctrl-C, 141 where the reader of
the output has left."""
NAME = "dllama"  # of the flags without a command, in config.toml and in variables

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
    "completion": "print what a shell needs to complete commands, flags and models",
    "config": "show which flags are set, and where",
    "root": "serve a model: the same as dllama-root",
    "worker": "compute for a root: the same as dllama-worker",
}
"""Each is the module of its name in dllama.cli.commands."""

SHORT = {"ls": "list"}  # as users of other programs type it

PROGRAMS = ("root", "worker")  # commands that are programs too, and read their flags themselves


def version_parser() -> FlagParser:
    """Returns a parser that knows nothing but --version, which needs to know of no commands."""
    return make_parser("dllama", DESCRIPTION, EPILOG)


def build_parser(only: str | None = None) -> FlagParser:
    """Returns the parser of all commands, or of one among the names of the others."""
    from dllama.plugins import package_of

    parser = make_parser("dllama", DESCRIPTION, EPILOG)
    parser.usage = "dllama [FLAGS]\n       dllama COMMAND [FLAGS]"
    add_mode_flags(parser)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name, summary in COMMANDS.items():
        if name in PROGRAMS or (only is not None and name != only):
            commands.add_parser(name, help=summary, add_help=False)
        else:
            importlib.import_module(f"dllama.cli.commands.{name}").add_parser(commands, summary)
    for name, point in plugin_commands().items():
        commands.add_parser(name, help=f"of the package {package_of(point)}", add_help=False)
    return parser


def add_mode_flags(parser: FlagParser) -> None:
    """Adds the flags that choose what happens without a command; mode.py reads them."""
    modes = parser.add_argument_group("without a command")
    modes.add_argument("-m", "--model", metavar="FILE|NAME", help="the model; without it any of "
                       "those on this machine, as the chat or a request names it")  # fmt: skip
    modes.add_argument("-p", "--prompt", metavar="TEXT", help="answer this, and end")
    for name, what in (
        ("--server", "serve, and do not chat (dllama --server --help: the flags of a server)"),
        ("--chat", "chat, and serve nobody else; with --url chat with a running server"),
        ("--cli", "answer one prompt, typed or piped (dllama --cli --help: its flags)"),
    ):
        modes.add_argument(name, action="store_true", help=what)


def hybrid_parser(*, is_private: bool = False) -> FlagParser:
    """Returns the parser of what happens without a command: a server and a chat with it, or with
    `is_private` the chat alone."""
    from dllama.cli.flags.hybrid import add_hybrid_flags

    parser = make_parser("dllama", DESCRIPTION, EPILOG)
    add_hybrid_flags(parser, 0)
    parser.set_defaults(run=functools.partial(_run_hybrid, is_private=is_private))
    return parser


def _run_hybrid(args: argparse.Namespace, *, is_private: bool) -> int:
    from dllama.cli.hybrid.session import run_hybrid

    return run_hybrid(args, has_default_model=False, is_private=is_private)


def parser_of(command: str) -> FlagParser:
    """Returns the parser of one command. Raises ConfigError for one of a broken plugin."""
    if command == NAME:
        return hybrid_parser()
    if command == "root":
        from dllama.cli.flags import root

        return root.build_parser()
    if command == "worker":
        from dllama.cli.flags import worker

        return worker.build_parser()
    if command not in COMMANDS:
        return plugin_parser(plugin_commands()[command])
    commands = make_parser("dllama", DESCRIPTION).add_subparsers()
    importlib.import_module(f"dllama.cli.commands.{command}").add_parser(
        commands, COMMANDS[command]
    )
    return commands.choices[command]


def is_command(name: str) -> bool:
    """Returns whether a name is that of a command, or of what happens without one."""
    return name in COMMANDS or name == NAME or name in plugin_commands()


def plugin_parser(point: EntryPoint) -> FlagParser:
    """Returns the parser of a command that a plugin brings. Raises ConfigError where the plugin is
    broken, which was told."""
    from dllama.plugins import leave_out, load

    module = load(point, ModuleType)
    if module is not None:
        commands = make_parser("dllama", DESCRIPTION).add_subparsers()
        try:
            module.add_parser(commands, "")
            return commands.choices[point.name]
        except Exception as error:  # a stranger's code raises anything
            leave_out(point, f"{type(error).__name__}: {error}")
    raise ConfigError(f"The command {point.name} is of a plugin that is broken.")


def plugin_commands() -> dict[str, EntryPoint]:
    """Returns the commands that plugins bring, but for those that are called as one of ours."""
    from dllama import plugins

    found = plugins.plugins_of(plugins.COMMANDS)
    for name in [name for name in found if name in (*COMMANDS, *SHORT, NAME)]:
        plugins.leave_out(found.pop(name), f"there is a {name} already")
    return found


def all_parsers() -> Iterator[tuple[str, FlagParser]]:
    """Yields the name and the parser of every command, those with the most flags first."""
    for name in (*sorted(COMMANDS, key=lambda name: name not in PROGRAMS), NAME):
        yield name, parser_of(name)
    for name, point in plugin_commands().items():
        with suppress(ConfigError):
            yield name, plugin_parser(point)


Commands: TypeAlias = "argparse._SubParsersAction[FlagParser]"
"""What `add_parser` of a command's module adds to."""
