"""dllama hello: a command. Its flags have variables and keys in config.toml, as all do."""

from __future__ import annotations

import argparse

from dllama.cli.command_table import Commands


def add_parser(commands: Commands, summary: str) -> None:
    parser = commands.add_parser("hello", help=summary, description="Greet somebody.")
    parser.add_argument("--name", default="world", help="who is greeted")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Returns the exit code."""
    print(f"Hello, {args.name}!")
    return 0
