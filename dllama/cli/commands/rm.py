"""dllama rm: removes models that were pulled."""

from __future__ import annotations

import argparse

from dllama.cli.command_table import Commands
from dllama.cli.flags.parser import HelpFormatter
from dllama.cli.terminal.output import complain, note
from dllama.errors import HubError
from dllama.hub.removal import remove_model
from dllama.hub.settings import hub_settings


def add_parser(commands: Commands, summary: str) -> None:
    parser = commands.add_parser(
        "rm", help=summary,
        description="Remove models that were pulled, and what is here of unfinished downloads. A "
        "server that has one loaded keeps it until it ends.",
        formatter_class=HelpFormatter,
    )  # fmt: skip
    parser.add_argument("names", metavar="NAME", nargs="+", help="as dllama list shows it")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Returns 0 where all of them are gone."""
    settings, code = hub_settings(), 0
    for text in args.names:
        try:
            note(f"deleted {remove_model(settings, text)!r}")
        except HubError as error:
            complain(str(error))
            code = 1
    return code
