"""The flags of a server and a chat with it in one terminal. All others are those of dllama-root."""

from __future__ import annotations

import argparse

from dllama.cli.flags.arguments import whole
from dllama.cli.flags.cluster import add_key_flag
from dllama.cli.flags.parser import FlagParser


def add_hybrid_flags(parser: FlagParser, n_workers: int) -> None:
    """Adds the flags; `n_workers` run on this machine where nothing else is said."""
    parser.passes_on = True  # to the parser of dllama-root
    parser.add_argument(
        "--n-workers", type=whole, default=n_workers, metavar="N",
        help="workers that are started on this machine and share its cores",
    )  # fmt: skip
    add_key_flag(parser)
    parser.add_argument("--no-chat", action="store_true", help="serve until Ctrl-C")
    add_talk_flags(parser)


def add_talk_flags(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of a chat in the terminal."""
    parser.add_argument("--system", metavar="TEXT", help="a system message")
    parser.add_argument("--plain", action="store_true", help="show Markdown as it was written")
    parser.add_argument("--no-history", action="store_true", help="keep no file of what was typed")
