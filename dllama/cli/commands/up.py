"""dllama up: a whole cluster on this machine, for a first look: workers, root and a chat."""

from __future__ import annotations

import argparse

from dllama.cli.command_table import Commands
from dllama.cli.flags.hybrid import add_hybrid_flags
from dllama.cli.flags.parser import HelpFormatter

N_WORKERS = 2


def add_parser(commands: Commands, summary: str) -> None:
    parser = commands.add_parser(
        "up", help=summary, formatter_class=HelpFormatter,
        description="Start local workers and a root, print the page's address and open a chat; all "
        "of it ends together. Other flags go to dllama-root: -m names the model, --port the port.",
    )  # fmt: skip
    add_hybrid_flags(parser, N_WORKERS)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    from dllama.cli.hybrid.session import run_hybrid

    return run_hybrid(args, has_default_model=True)
