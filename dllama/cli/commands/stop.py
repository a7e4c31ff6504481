"""dllama stop: has a running server free the memory of a model."""

from __future__ import annotations

import argparse

from dllama.cli.command_table import Commands
from dllama.cli.flags.parser import HelpFormatter
from dllama.cli.server_address import add_server_flags, address_of
from dllama.cli.terminal.output import note
from dllama.errors import DllamaError

TIMEOUT_S = 120.0  # answers that run come to their end first
KEPT = "X-Dllama-Ignored"  # the header of a server that keeps its only model


def add_parser(commands: Commands, summary: str) -> None:
    parser = commands.add_parser(
        "stop", help=summary,
        description="Have a running server of several models free the memory of one; the next "
        "request for it loads it again.",
        formatter_class=HelpFormatter,
    )  # fmt: skip
    parser.add_argument("name", metavar="MODEL", help="as dllama ps shows it")
    add_server_flags(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    server = address_of(args)
    known = server.ask("GET", "/api/ps", None, TIMEOUT_S).get("models")
    rows = known if isinstance(known, list) else []
    names = [str(row.get("name")) for row in rows if isinstance(row, dict)]
    if args.name not in names and f"{args.name}:latest" not in names:
        raise DllamaError(
            f"the server at {server} has no model {args.name!r} in memory; it has "
            f"{', '.join(names) or 'none'}"
        )
    body = {"model": args.name, "keep_alive": 0, "stream": False}
    answer, headers = server.ask_with_headers("POST", "/api/generate", body, TIMEOUT_S)
    if KEPT in headers or answer.get("done_reason") != "unload":
        raise DllamaError(
            f"the server at {server} keeps {args.name}: it was started for this model alone, and "
            "frees its memory when it ends, or with --sleep-idle-seconds"
        )
    note(f"{args.name} is unloaded")
    return 0
