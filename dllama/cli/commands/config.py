"""dllama config: which flags are set outside of the command line, and where."""

from __future__ import annotations

import argparse

from dllama.cli.command_table import COMMANDS, NAME, Commands
from dllama.cli.flags.parser import HelpFormatter
from dllama.host.garbage import collector_paused

EXAMPLES = """examples:
  dllama config                    what variables and config.toml set, for all commands
  dllama config root               every flag of dllama-root, and where its value comes from
  dllama config run -n 100         the same with a command line

Flags count before variables, those before presets, those before config.toml, and that before the
defaults. A variable is called as its flag: DLLAMA_CTX_SIZE is --ctx-size of every command, and
DLLAMA_RUN_CTX_SIZE that of dllama run. In config.toml, ctx-size = 4096 stands at the top for every
command, or below [run]. `dllama` is the command where none is named."""


def add_parser(commands: Commands, summary: str) -> None:
    parser = commands.add_parser(
        "config", help=summary, epilog=EXAMPLES, formatter_class=HelpFormatter,
        description="Show which flags are set by variables and by config.toml, and where, or all "
        "flags of a command. Fails where one of them cannot be read.",
    )  # fmt: skip
    parser.add_argument(
        "command", nargs="?", metavar="COMMAND", choices=[NAME, *COMMANDS],
        help="show all flags of this one",
    )  # fmt: skip
    parser.add_argument(
        "words", nargs=argparse.REMAINDER, metavar="FLAGS", help="as they would be typed"
    )
    parser.add_argument("--json", action="store_true", help="print one object")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    with collector_paused():
        from dllama.cli.work import config

    return config.run(args)
