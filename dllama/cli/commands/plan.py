"""dllama plan: what a model would do on these machines, before anything is loaded."""

from __future__ import annotations

import argparse
from pathlib import Path

from dllama.cli.command_table import Commands
from dllama.cli.flags.engine import add_engine_flags
from dllama.cli.flags.parser import HelpFormatter
from dllama.host.garbage import collector_paused

EXAMPLES = """examples:
  dllama plan -m model.gguf --workers 10.0.0.2,10.0.0.3
  dllama plan -m model.gguf --simulate my-nodes.toml
  dllama plan --simulate examples/plans/pi5-llama-3-8b.toml --json

GB/s is what products with one row read of the weights, Gop/s what those with many rows compute.
Prompts are of 512 tokens and answers of 128. Memory is that of the node that needs most."""


def add_parser(commands: Commands, summary: str) -> None:
    parser = commands.add_parser(
        "plan", help=summary, epilog=EXAMPLES,
        description="Say, before anything is loaded, how fast a model would be on one machine, on "
        "each sensible part of the others and on all of them, what memory each needs, and what "
        "limits.",
        formatter_class=HelpFormatter,
    )  # fmt: skip
    add_engine_flags(parser)
    parser.add_argument(
        "--simulate", metavar="FILE", type=Path,
        help="plan for the nodes and links that a TOML file describes; nothing is measured",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print one object")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    with collector_paused():
        from dllama.cli.work import plan

    return plan.run(args)
