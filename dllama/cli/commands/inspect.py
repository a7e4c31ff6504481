"""dllama inspect: the contents of a model file."""

from __future__ import annotations

import argparse
import json

from dllama.cli.command_table import Commands
from dllama.cli.terminal.output import show


def add_parser(commands: Commands, summary: str) -> None:
    parser = commands.add_parser(
        "inspect", help=summary,
        description="Show sizes, tensor types, tokenizer and context of a model file, also of one "
        "that cannot be run, and why.",
    )  # fmt: skip
    parser.add_argument("model", metavar="FILE|NAME")
    parser.add_argument("--json", action="store_true", help="print one object")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    from dllama.inspect.describe import describe
    from dllama.inspect.render import render

    facts = describe(args.model)
    if args.json:
        print(json.dumps(facts.as_json(), indent=1))
    else:
        show(render(facts))
    return 0
